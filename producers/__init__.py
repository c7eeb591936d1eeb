"""Producers: the publishing SDK, and the programs that publish events with it."""

if __name__ != "tickertape.producers":
    raise ImportError("this folder is imported as tickertape.producers; install it with 'pip install -e .'")
