"""The producers: what publishes events."""

if __name__ != "tickertape.producers":
    raise ImportError("this folder is imported as tickertape.producers; 'pip install -e .' makes it so")
