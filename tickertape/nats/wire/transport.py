"""TCP transport of the NATS client.

nats-py gives a transport no deadline for closing, takes the end of a stream for a successful handshake, and
sends CONNECT and PING as separate packets, which can hide the error of a server that rejects the client.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport

from tickertape.net.outgoing import deadline, open_connection

DEFAULT_PORT: Final = 4222
"""Port of addresses without one."""

CLOSE_TIMEOUT: Final = 1.0
"""Maximum seconds for closing a transport; after a failed TLS handshake, closing never completes."""


class WireTransport(TcpTransport):
    """TCP transport of nats-py with a bounded close and errors that name the cause of a disconnect."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._buffered_connect = b""
        self.closing = False

    def __bool__(self) -> bool:
        return True  # nats-py would replace a transport that is falsy while it is not connected

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        # The previous attempt may have failed between CONNECT and PING.
        self._buffered_connect = b""
        self.closing = False
        assert uri.hostname is not None
        port = uri.port or DEFAULT_PORT
        async with deadline(connect_timeout):
            reader, writer = await open_connection(uri.hostname, port, limit=buffer_size)
        # nats-py keeps these two in case the connection is upgraded to TLS.
        self._bare_io_reader = self._io_reader = reader
        self._bare_io_writer = self._io_writer = writer

    async def drain(self) -> None:
        if not self.closing:
            await super().drain()  # type: ignore[no-untyped-call]
            return
        # A server that has stopped reading must not delay the end of the process.
        with contextlib.suppress(OSError):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await super().drain()  # type: ignore[no-untyped-call]

    def write(self, payload: bytes) -> None:
        # If the PING that follows CONNECT were a separate packet, a server that rejects the CONNECT answers
        # the PING with a reset, and the kernel may drop the error that the server sent before.
        if payload.startswith(b"CONNECT "):
            self._buffered_connect = payload
            return
        connect, self._buffered_connect = self._buffered_connect, b""
        self.writelines([connect + payload])

    def writelines(self, payload: Sequence[bytes]) -> None:
        try:
            super().writelines(payload)  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            # uvloop raises this for a closed socket: it would end the flusher of nats-py silently, and each
            # later publish would raise it.
            raise ConnectionResetError("connection lost") from error

    def pause_reading(self) -> None:
        """Stop reading from the socket until ``resume_reading``."""
        if (socket := self._open_socket()) is not None:
            socket.pause_reading()

    def resume_reading(self) -> None:
        """Resume reading after ``pause_reading``."""
        if (socket := self._open_socket()) is not None:
            socket.resume_reading()

    def _open_socket(self) -> asyncio.Transport | None:
        socket: asyncio.Transport | None = getattr(self._io_writer, "transport", None)
        return None if socket is None or socket.is_closing() else socket

    async def readline(self) -> bytes:
        try:
            line: bytes = await super().readline()  # type: ignore[no-untyped-call]
        except ValueError as error:
            # The line exceeds the limit of the StreamReader.
            raise ConnectionResetError(f"the server does not speak the NATS protocol: {error}") from None
        if not line:
            # nats-py would treat the end of the stream as a successful handshake.
            raise ConnectionResetError("the server closed the connection without an error message")
        return line

    async def wait_closed(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await super().wait_closed()  # type: ignore[no-untyped-call]
        except TimeoutError:
            if self._io_writer is not None:
                self._io_writer.transport.abort()
