"""uvicorn on the main and the ops port: listeners of our own, and a deadline for slow request heads."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

BACKLOG: Final = 4096
HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request's head; uvicorn itself waits for ever."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request's head; uvicorn's parser has no limit."""


class ListenError(Exception):
    """A port cannot be listened on.

    Args:
        what: what happened, to which address.
        remedy: what to do.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what, remedy)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.what}; {self.remedy}"


def listen(host: str, port: int, option: str) -> socket.socket:
    """Bind an address, before anything else starts.

    Args:
        host: name or address.
        port: 0 takes a free one.
        option: name of the option to change, for the error.

    Raises:
        ListenError: the address cannot be had.
    """
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.setblocking(False)
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"{where} is in use by another program", f"give another {option}") from None
        raise ListenError(
            f"{where} cannot be listened on: {error.strerror or error}", f"give another {option}"
        ) from None
    return listener


class _GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a deadline and a size for each request's head."""

    _head_timer: asyncio.TimerHandle | None = None
    _head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_done()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._head_timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._head_timer is not None and self._head_bytes > MAX_HEAD_BYTES:
            self.transport.write(b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\n\r\n")
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_timer is None:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._head_done()
        super().on_headers_complete()

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT, self._head_late)

    def _head_done(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_late(self) -> None:
        self._head_timer = None
        if not self.transport.is_closing():
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\n\r\n")
            self.transport.close()


class HttpServer(uvicorn.Server):
    """One listener with its pages; signals are the application's own business.

    Args:
        app: the pages.
        listener: a bound socket.
        websocket: builds what an upgrade is handed to; None serves no WebSocket.
    """

    def __init__(
        self, app: ASGIApp, listener: socket.socket, websocket: Callable[..., asyncio.Protocol] | None = None
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=_GuardedHttp,
                ws=websocket or "none",  # type: ignore[arg-type]
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_graceful_shutdown=2,
            )
        )
        self._listener = listener

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def __repr__(self) -> str:
        return f"HttpServer({self.address})"

    @property
    def address(self) -> str:
        """``host:port`` that it listens on."""
        name: Any = self._listener.getsockname()
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"

    def stop_accepting(self) -> None:
        """Close the listener; connections that are open stay."""
        for server in self.servers:
            server.close()

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set."""
        await self.serve(sockets=[self._listener])
