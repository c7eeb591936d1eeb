"""The contract: subjects, events, wire messages, close codes and streams.

Every other room imports from here; this one imports from none of them.
"""
