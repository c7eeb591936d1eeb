"""The contract: subjects, events, messages and close codes; pure, and no program's bookkeeping.

Every other package imports from here; this one imports ``tickertape.errors`` alone.
"""

if __name__ != "tickertape.contracts":
    raise ImportError("this folder is imported as tickertape.contracts; 'pip install -e .' makes it so")
