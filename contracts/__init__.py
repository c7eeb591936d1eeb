"""The contract: subjects, events, wire messages, close codes and streams.

Every other room imports from here; this one imports from none of them.
"""

if __name__ != "tickertape.contracts":
    raise ImportError("this folder is imported as tickertape.contracts; 'pip install -e .' makes it so")
