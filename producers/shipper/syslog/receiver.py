"""Receiver of syslog: listens on addresses, and yields the messages as lines for a spool.

Invariants:

1. ``MAX_WAITING`` bytes of messages wait to be spooled at most; then nothing more is read, so that senders
   over a connection wait. The kernel then drops datagrams, and their number is reported.
2. RELP acknowledges a message only after it was spooled.
3. A connection with an error, or more than ``MAX_CONNECTIONS``, affects no other one.
"""

import asyncio
import contextlib
import functools
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from tickertape.producers.shipper.syslog.addresses import SyslogAddress
from tickertape.producers.shipper.syslog.framing import (
    Framing,
    FramingError,
    RelpFraming,
    TcpFraming,
    to_line,
)

from tickertape.net.addresses import resolve
from tickertape.net.listeners import bound_address, listen_error
from tickertape.process.tasks import Tasks
from tickertape.rate_limit import RepeatFilter

MAX_WAITING: Final = 1024 * 1024
"""Bytes of messages that wait to be spooled."""

MAX_CONNECTIONS: Final = 512
"""Concurrent connections of senders."""

CHUNK_BYTES: Final = 64 * 1024
"""Bytes that one read of a connection requests, and the maximum of a datagram."""

SPOOLED_BYTES: Final = 64 * 1024
"""Bytes that the spool takes together."""

_BACKLOG: Final = 128
_HANDSHAKE_TIMEOUT: Final = 10.0
_DATAGRAMS: Final = 256  # that are read before other work gets its turn
_BUFFER_BYTES: Final = 4 * 1024 * 1024  # of the kernel, for datagrams
_REPORT_INTERVAL: Final = 60.0
_SO_RXQ_OVFL: Final = 40
"""Option of Linux by which a socket tells how many datagrams were dropped (socket(7))."""

_FRAMINGS: Final[dict[str, Callable[[], Framing]]] = {
    "tcp": TcpFraming, "tls": TcpFraming, "relp": RelpFraming,
}  # fmt: skip


class SyslogReceiver:
    """Input of a spool; see ``InputSource``.

    Args:
        warn: called with a line for the operator.

    Attributes:
        connections: open connections.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self.connections: set[asyncio.StreamWriter] = set()
        self._dropped: dict[int, int] = {}  # by file descriptor
        self._warn = warn
        self._reports = RepeatFilter(_REPORT_INTERVAL)
        # Lines of a chunk, and what is called once they are spooled.
        self._waiting: deque[tuple[bytes, Callable[[], None]]] = deque()
        self._size = 0
        self._taken: list[Callable[[], None]] = []
        self._arrived = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []

    @property
    def dropped(self) -> int:
        """Number of datagrams that the kernel has dropped."""
        return sum(self._dropped.values())

    def open(self, addresses: Sequence[SyslogAddress], tls: ssl.SSLContext | None, tasks: Tasks) -> list[str]:
        """Listen on addresses.

        Args:
            addresses: where to listen.
            tls: context of ``tls://`` addresses.
            tasks: group for the tasks of the receiver.

        Returns:
            The addresses with their ports.

        Raises:
            ListenError: an address is not available.
        """
        bound = []
        for address in addresses:
            kind = socket.SOCK_DGRAM if address.transport == "udp" else socket.SOCK_STREAM
            for listener in _bind(address, kind):
                self._sockets.append(listener)
                bound.append(f"{address.transport}://{bound_address(listener)}")
                if address.transport == "udp":
                    tasks.start(self._receive(listener), name=f"receive {address}")
                else:
                    listener.listen(_BACKLOG)
                    tasks.start(self._accept(listener, address, tls), name=f"accept {address}")
        return bound

    def close(self) -> None:
        """Stop listening, and close all connections."""
        for server in self._servers:
            server.close()
        for writer in self.connections:
            writer.transport.abort()
        for listener in self._sockets:
            listener.close()

    async def wait(self) -> None:
        """Wait until there is something to read."""
        while not self._waiting:
            self._arrived.clear()
            await self._arrived.wait()

    def read(self) -> bytes | None:
        """Return lines; None if there are none."""
        chunks = []
        size = 0
        while self._waiting and size < SPOOLED_BYTES:
            chunk, spooled = self._waiting.popleft()
            chunks.append(chunk)
            size += len(chunk)
            self._taken.append(spooled)
        self._size -= size
        if self._size < MAX_WAITING:
            self._room.set()
        return b"".join(chunks) or None

    def confirm(self) -> None:
        """Send the acknowledgements of the lines that were read, because they are spooled."""
        taken, self._taken = self._taken, []
        for spooled in taken:
            spooled()

    async def _accept(
        self, listener: socket.socket, address: SyslogAddress, tls: ssl.SSLContext | None
    ) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(reader, writer, _FRAMINGS[address.transport]())

        is_tls = address.transport == "tls"
        server = await asyncio.start_server(
            serve,
            sock=listener,
            limit=CHUNK_BYTES,
            ssl=tls if is_tls else None,
            ssl_handshake_timeout=_HANDSHAKE_TIMEOUT if is_tls else None,
        )
        self._servers.append(server)

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, framing: Framing
    ) -> None:
        peer = str((writer.get_extra_info("peername") or ("unknown",))[0])
        if len(self.connections) >= MAX_CONNECTIONS:
            self._report(f"syslog: more than {MAX_CONNECTIONS} connections; that of {peer} is closed")
            writer.transport.abort()
            return
        self.connections.add(writer)
        try:
            while data := await reader.read(CHUNK_BYTES):
                messages = framing.feed(data)
                # Now: later ones are those of messages that are not spooled.
                responses = framing.responses()
                await self._put(messages, functools.partial(_respond, writer, responses))
            await self._put(framing.finish(), lambda: None)
        except FramingError as error:
            self._report(f"syslog from {peer}: {error}; its connection is closed")
            writer.transport.abort()
        except OSError:
            pass  # the sender connects again
        finally:
            self.connections.discard(writer)
            writer.close()

    async def _put(self, messages: list[bytes], spooled: Callable[[], None]) -> None:
        """Add messages; wait until there is room."""
        lines = [line for message in messages if (line := to_line(message))]
        self._add(b"\n".join(lines) + b"\n" if lines else b"", spooled)
        await self._room.wait()

    def _add(self, chunk: bytes, spooled: Callable[[], None]) -> None:
        if not chunk:
            spooled()  # such as the response to the first frame of RELP
            return
        self._waiting.append((chunk, spooled))
        self._size += len(chunk)
        if self._size >= MAX_WAITING:
            self._room.clear()
        self._arrived.set()

    async def _receive(self, listener: socket.socket) -> None:
        """Read datagrams, each of which is a message."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(listener, ready.set)
        try:
            while True:
                await self._room.wait()
                await ready.wait()
                lines = self._read_datagrams(listener)
                if len(lines) < _DATAGRAMS:
                    ready.clear()
                if lines:
                    self._add(b"\n".join(lines) + b"\n", lambda: None)
                await asyncio.sleep(0)
        finally:
            loop.remove_reader(listener)

    def _read_datagrams(self, listener: socket.socket) -> list[bytes]:
        lines = []
        dropped = None
        with contextlib.suppress(BlockingIOError):
            for _ in range(_DATAGRAMS):
                data, ancillary, _, _ = listener.recvmsg(CHUNK_BYTES, 64)
                for level, kind, value in ancillary:
                    if (level, kind) == (socket.SOL_SOCKET, _SO_RXQ_OVFL):
                        dropped = struct.unpack("I", value)[0]
                # A datagram without a message counts, so that the caller knows that there may be more.
                lines.append(to_line(data))
        if dropped is not None and dropped > self._dropped.get(listener.fileno(), 0):
            self._dropped[listener.fileno()] = dropped
            self._report(
                f"syslog: {self.dropped} datagrams were lost so far, as they arrive faster than they are"
                " shipped; use tcp:// or relp://"
            )
        return lines

    def _report(self, text: str) -> None:
        if self._reports.allow(text.partition(":")[0], asyncio.get_running_loop().time()):
            self._warn(text)


def _bind(address: SyslogAddress, kind: socket.SocketKind) -> list[socket.socket]:
    """Bind a socket to each address of a host.

    Raises:
        ListenError: an address is not available.
    """
    sockets = []
    try:
        for family, target in resolve(address.host, address.port):
            listener = socket.socket(family, kind)
            sockets.append(listener)
            listener.setblocking(False)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if kind == socket.SOCK_STREAM:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            else:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
                with contextlib.suppress(OSError):
                    listener.setsockopt(socket.SOL_SOCKET, _SO_RXQ_OVFL, 1)
            listener.bind(target)
    except OSError as error:
        for listener in sockets:
            listener.close()
        raise listen_error(error, str(address), "--syslog port") from None
    return sockets


def _respond(writer: asyncio.StreamWriter, data: bytes) -> None:
    if data and not writer.is_closing():
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(data)
