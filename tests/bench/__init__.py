"""Benchmark that measures this relay and its peers in one run on one machine.

Run it with ``make bench``, or with ``python -m tests.bench`` from the root of the repository.
"""
