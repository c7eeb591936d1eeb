"""Writes to a connection that the peer may have closed."""

import asyncio


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write data to a connection.

    Raises:
        ConnectionResetError: the connection is closed. uvloop raises RuntimeError then, which callers of a
            socket do not expect.
    """
    try:
        writer.write(data)
    except RuntimeError as error:
        raise ConnectionResetError("connection lost") from error
