"""The ``/metrics`` endpoint of a producer program, on every address of its host.

It is served by a thread of its own, so that it also answers while the program's event loop hangs.

Invariants:

1. There are at most ``MAX_CONNECTIONS``; beyond them, the address with most of them loses its oldest.
2. A connection is for one request and ends in time, whatever its client sends or reads.
3. A request for a name that is not the server's own is not answered (DNS rebinding).
"""

import asyncio
import contextlib
import logging
import socket
import threading
from collections import Counter
from http import HTTPStatus
from typing import Final, NoReturn

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from tickertape.net.addresses import is_unavailable, resolve
from tickertape.net.host_names import HostNames
from tickertape.net.listeners import POLL_INTERVAL, is_listening, listen_error, listener_lost
from tickertape.urls import host_port

log = logging.getLogger("tickertape.metrics")

MAX_CONNECTIONS: Final = 32
"""Maximum number of connections to a port for operators; a few programs scrape it."""

HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send its request."""

RESPONSE_TIMEOUT: Final = 30.0
"""Seconds that a client has to read the response."""

MAX_HEAD_BYTES: Final = 16 * 1024
"""Maximum bytes of a request."""

_BACKLOG: Final = 128
_PATHS: Final = frozenset({"/", "/metrics"})


class MetricsPort:
    """HTTP server for metrics that runs until the program ends.

    Args:
        host: name or address to listen on; addresses that do not exist on this machine are skipped.
        port: port on all addresses.
        collector: provides the metrics; called in another thread.
        names: names of the server besides those that cannot be rebound.

    Raises:
        ListenError: the port is not available.
    """

    def __init__(self, host: str, port: int, collector: Collector, names: HostNames | None = None) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(collector)
        self._names = names or HostNames()
        self._address = host_port(host, port)
        self._sockets: list[socket.socket] = []
        self._connections: dict[asyncio.Task[None], str] = {}  # addresses, oldest first
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="metrics", daemon=True)
        try:
            self._listen(host, port)
        except OSError as error:
            self._close_sockets()
            raise listen_error(error, f"{self._address} for metrics", "--metrics-port") from None
        self._thread.start()
        started.wait()

    def __repr__(self) -> str:
        return f"MetricsPort({self._address})"

    def close(self) -> None:
        """Shut down the server and join its thread."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    async def watch(self) -> NoReturn:
        """Check the server periodically until cancelled.

        Raises:
            ListenError: the server has stopped on one of the addresses.
        """
        while self._thread.is_alive() and all(map(is_listening, self._sockets)):  # noqa: ASYNC110
            await asyncio.sleep(POLL_INTERVAL)
        raise listener_lost(self._address)

    # Listening.

    def _listen(self, host: str, port: int) -> None:
        failure: OSError | None = None
        for family, address in resolve(host, port):
            listener = socket.socket(family, socket.SOCK_STREAM)
            self._sockets.append(listener)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setblocking(False)
                listener.bind(address)
                listener.listen(_BACKLOG)
            except OSError as error:
                if not is_unavailable(error):
                    raise
                self._sockets.pop().close()
                failure = error
        if failure is not None and not self._sockets:
            raise failure

    def _close_sockets(self) -> None:
        for listener in self._sockets:
            listener.close()

    # The thread.

    def _run(self, started: threading.Event) -> None:
        try:
            asyncio.run(self._serve(started))
        except OSError as error:  # there is no descriptor for its event loop
            log.error("cannot serve metrics on %s: %s", self._address, error.strerror or error)
        finally:
            started.set()  # the constructor waits for it

    async def _serve(self, started: threading.Event) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        accepting = [self._loop.create_task(self._accept(listener)) for listener in self._sockets]
        await self._stop.wait()
        tasks = [*accepting, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._close_sockets()

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, peer = await loop.sock_accept(listener)
            except OSError:
                if not is_listening(listener):
                    return
                await asyncio.sleep(POLL_INTERVAL)  # there are no file descriptors left
                continue
            if len(self._connections) >= MAX_CONNECTIONS:
                self._evict()
            task = loop.create_task(self._answer(connection))
            self._connections[task] = str(peer[0])
            task.add_done_callback(lambda task: self._connections.pop(task, None))

    def _evict(self) -> None:
        """End the oldest connection of the address that has most of them."""
        (largest, _), *_ = Counter(self._connections.values()).most_common(1)
        task = next(task for task, address in self._connections.items() if address == largest)
        del self._connections[task]
        task.cancel()

    async def _answer(self, connection: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(HEAD_TIMEOUT):
                reader, writer = await asyncio.open_connection(sock=connection, limit=MAX_HEAD_BYTES)
                head = await reader.readuntil(b"\r\n\r\n")
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                writer.write(self._response(head))
                writer.close()
                await writer.wait_closed()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        finally:
            if writer is None:
                connection.close()
            else:
                with contextlib.suppress(OSError):
                    writer.transport.abort()

    # Requests.

    def _response(self, head: bytes) -> bytes:
        """Return the response to a request."""
        line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        fields = [
            (name.strip().lower(), value.strip()) for name, _, value in (at.partition(":") for at in lines)
        ]
        hosts = [value for name, value in fields if name == "host"]
        if version not in ("HTTP/1.0", "HTTP/1.1") or not target.startswith("/") or len(hosts) > 1:
            return _encode(HTTPStatus.BAD_REQUEST, b"invalid request\n")
        host = "".join(hosts)
        if not self._names.allows(host):
            reason = f"{host[:80]!r} is not a name of this port; use an address, or --metrics-allowed-hosts\n"
            return _encode(HTTPStatus.FORBIDDEN, reason.encode())
        if method not in ("GET", "HEAD"):
            return _encode(HTTPStatus.METHOD_NOT_ALLOWED, b"use GET\n")
        if target.partition("?")[0] not in _PATHS:
            return _encode(HTTPStatus.NOT_FOUND, b"see /metrics\n")
        accept = ", ".join(value for name, value in fields if name == "accept")
        encoder, content_type = choose_encoder(accept)
        try:
            content = encoder(self._registry)
        except Exception:
            log.exception("cannot collect the metrics")
            return _encode(HTTPStatus.INTERNAL_SERVER_ERROR, b"cannot collect the metrics\n")
        return _encode(HTTPStatus.OK, content, content_type, body=method == "GET")


def _encode(
    status: HTTPStatus, content: bytes, content_type: str = "text/plain; charset=utf-8", *, body: bool = True
) -> bytes:
    return b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status, status.phrase.encode(), content_type.encode(), len(content), content if body else b"",
    )  # fmt: skip
