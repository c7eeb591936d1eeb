"""The relay's decisions, pure: no asyncio, no sockets, no NATS, no clock.

``now`` is always an argument: UNIX seconds from a clock that never goes back. What goes out leaves
through a session's ``Link``; what comes in are calls of ``Hub``.
"""
