"""The contract between producers, relay and clients: subjects, events, messages and close codes. Pure.

Every other package imports from here; this one imports ``tickertape.errors`` alone.
"""

if __name__ != "tickertape.contracts":
    raise ImportError("this folder is imported as tickertape.contracts; 'pip install -e .' makes it so")
