"""An address that answers no connection attempt: its listener does not accept, and its backlog is full."""

import contextlib
import socket
from collections.abc import Iterator
from typing import Final

_FILLERS: Final = 4
"""Connections that fill the backlog of 0, for which the system keeps a place or two."""


@contextlib.contextmanager
def black_hole(address: str, port: int) -> Iterator[int]:
    """Listen on an address; yield the port."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((address, port))
        server.listen(0)
        target = server.getsockname()
        for _ in range(_FILLERS):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(target)
        yield target[1]
