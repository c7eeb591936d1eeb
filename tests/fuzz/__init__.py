"""Fuzzer for everything that an untrusted client can send to the main port: heads, frames and messages.

``make fuzz`` runs a million cases; ``python -m tests.fuzz --seed N`` repeats one of them.
"""
