"""Fuzzer for everything that a stranger can send: to the main port, to NATS, into a log file or a token.

``make fuzz`` runs every target for ten minutes; see ``__main__``.
"""
