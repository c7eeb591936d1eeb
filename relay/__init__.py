"""The relay: one log in memory, and every client a cursor in it."""

if __name__ != "tickertape.relay":
    raise ImportError("this folder is imported as tickertape.relay; 'pip install -e .' makes it so")
