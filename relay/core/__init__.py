"""Pure core of the relay: no asyncio, no sockets, no NATS, no clock.

Callers pass the time as ``now``: UNIX seconds from a clock that never goes back. Input arrives as calls of
``Hub``; output leaves through the ``Link`` of a session.
"""
