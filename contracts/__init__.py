"""The contract between producers, relay and clients: subjects, events, messages and close codes. Pure.

Other packages import from here; this one imports only ``tickertape.errors`` and ``tickertape.validation``.
"""

if __name__ != "tickertape.contracts":
    raise ImportError("this folder is imported as tickertape.contracts; install it with 'pip install -e .'")
