"""Relay: an in-memory event log, in which every client is a cursor."""

if __name__ != "tickertape.relay":
    raise ImportError("this folder is imported as tickertape.relay; install it with 'pip install -e .'")
