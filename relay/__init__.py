"""Relay: one event log in memory, in which every client is a cursor."""

if __name__ != "tickertape.relay":
    raise ImportError("import this package as tickertape.relay; install it with 'pip install -e .'")
