"""Tokens: which keys count, what a token must say, which were revoked, and how one is made."""
