"""The benchmark: this relay beside its peers in one run, on one machine.

Run it as ``make bench``, or ``python -m tests.bench``, from the root of the repository.
"""
