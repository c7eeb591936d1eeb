"""Writing to a socket whose other side may be gone."""

import asyncio


def write(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Write to a socket.

    Raises:
        ConnectionResetError: it is closed; uvloop says RuntimeError, which no caller of a socket expects.
    """
    try:
        writer.write(data)
    except RuntimeError as error:
        raise ConnectionResetError("the connection was lost") from error
