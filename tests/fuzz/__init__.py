"""A fuzzer for whatever a stranger can send to the main port: heads, frames and messages.

``make fuzz`` runs a million cases; ``python -m tests.fuzz --seed N`` runs the one that failed.
"""
