"""uvicorn on the main and the ops port: listeners of our own, and bounds for what a request may take."""

import asyncio
import contextlib
import errno
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final, NoReturn

import orjson
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from contracts.codes import ErrorCode
from contracts.errors import MendableError
from relay.core.admission import Limit, Visitor
from relay.door import Door
from relay.listener import Listener, bind

BACKLOG: Final = 4096
HEAD_TIMEOUT: Final = 5.0
"""Seconds that a client has to send a request's head; uvicorn itself waits for ever."""

MAX_HEAD_BYTES: Final = 32 * 1024
"""Bytes of a request's head; uvicorn's parser has no limit."""

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds from a request's head to the end of its answer, however slowly a client reads: 4 MiB at 70 KB/s."""


_METHODS: Final = (b"GET", b"HEAD", b"OPTIONS")
MAX_PIPELINED: Final = 16
"""Requests that may wait on one socket for the answer to the one before; one read can hold ten thousand."""


class ListenError(MendableError):
    """A port cannot be listened on."""


def listen(host: str, port: int, option: str, *, shared: bool = False) -> Listener:
    """Bind a port at all addresses of a host, before anything else starts.

    Args:
        host: name or address.
        port: 0 takes a free one.
        option: name of the option to change, for the error.
        shared: with other processes of the same user, among whom the system spreads the connections.

    Raises:
        ListenError: the address cannot be had.
    """
    try:
        return bind(host, port, shared=shared)
    except OSError as error:
        where = f"{host}:{port}"
        if error.errno == errno.EADDRINUSE:
            raise ListenError(f"{where} is in use by another program", f"give another {option}") from None
        raise ListenError(
            f"{where} cannot be listened on: {error.strerror or error}", f"give another {option}"
        ) from None


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP protocol with a deadline and a size for each request's head, no bodies, and an end.

    Attributes:
        visitor: who it is counted as; None on the ops port, and once a WebSocket has taken over.
        door: that the visitor came through.
    """

    visitor: Visitor | None = None
    _timer: asyncio.TimerHandle | None = None
    _in_head = True
    _head_bytes = 0
    _why: tuple[int, str, str] = (400, "Bad Request", "not an HTTP request")

    def __init__(self, *args: Any, door: Door | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.door = door
        self._answers: deque[RequestResponseCycle] = deque()  # under way, in the order of their requests

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._give_up_answers()
        if self.visitor is not None and self.door is not None:
            if self._in_head and self.cycle is None:
                self._fault()  # it never asked for anything
            self.door.admission.leave(self.visitor)
            self.visitor = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(431, "Request Header Fields Too Large", Limit.HEAD_BYTES)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["state"]["visitor"] = self.visitor
        if not self._in_head:
            self._expect_head()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._disarm()
        if self.parser.get_method() not in _METHODS:
            self._break_off(405, "Method Not Allowed", "nothing is taken in over HTTP; GET is all there is")
        if len(self.pipeline) >= MAX_PIPELINED:
            self._break_off(
                400, "Bad Request", f"more than {MAX_PIPELINED} requests at once; wait for answers"
            )
        for name, value in self.headers:
            # Nothing here takes a body, and two who disagree on where one ends is how requests are smuggled.
            if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b" \t0")):
                self._break_off(400, "Bad Request", "a request here has no body")
        while self._answers and self._answers[0].response_complete:
            self._answers.popleft()
        if self._answers and self.parser.should_upgrade() and self._should_upgrade():
            # The socket would get another owner, and the answer's task nobody who tells it of its end.
            self._break_off(400, "Bad Request", "an upgrade behind a request without an answer; wait for it")
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not None and self.cycle is not before:
            self._answers.append(self.cycle)
        self._timer = self.loop.call_later(RESPONSE_TIMEOUT, self.abort)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, in the words of all our answers."""
        status, phrase, message = self._why
        self._refuse(status, phrase, None, message)

    def handle_websocket_upgrade(self) -> None:
        self._disarm()
        super().handle_websocket_upgrade()
        # It holds us, and nothing else would end that before the garbage collector comes.
        self.parser = None  # type: ignore[assignment]

    def abort(self) -> None:
        """Cut it."""
        self._disarm()
        self._give_up_answers()
        self.transport.abort()

    def _expect_head(self) -> None:
        self._disarm()
        self._in_head = True
        self._head_bytes = 0
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self._head_late)

    def _give_up_answers(self) -> None:
        """Let nothing more be written by answers that are under way.

        uvicorn tells the last of them only, and not before the connection is lost; the others would write to
        a closed transport, and each of those is a page of traceback in the log.
        """
        for answer in self._answers:
            answer.disconnected = True
            answer.message_event.set()
        self._answers.clear()
        self.pipeline.clear()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _head_late(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self._refuse(408, "Request Timeout", Limit.HEAD_TIME)

    def _break_off(self, status: int, phrase: str, message: str) -> NoReturn:
        """End the parsing; uvicorn then asks for ``send_400_response``."""
        self._why = (status, phrase, message)
        raise ValueError(message)

    def _refuse(self, status: int, phrase: str, limit: Limit | None, message: str = "") -> None:
        body = orjson.dumps({"code": ErrorCode.BAD_QUERY, "message": message or phrase.lower()})
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n"
            b"connection: close\r\n\r\n%b" % (status, phrase.encode(), len(body), body)
        )
        self._give_up_answers()
        self._disarm()
        self.transport.close()
        # Who does not read what was written before would hold the socket for as long as it likes.
        self._timer = self.loop.call_later(HEAD_TIMEOUT, self.abort)
        if self.door is not None and limit is not None:
            self.door.admission.refused[limit] += 1
        self._fault()

    def _fault(self) -> None:
        if self.visitor is not None and self.door is not None:
            self.door.admission.fault(self.visitor.address, self.door.clock())


class HttpServer(uvicorn.Server):
    """One listener with its pages; signals are the application's own business.

    Args:
        app: the pages.
        listener: bound sockets.
        websocket: builds what an upgrade is handed to; None serves no WebSocket.
        http: builds what a socket is handed to.
    """

    def __init__(
        self,
        app: ASGIApp,
        listener: Listener,
        websocket: Callable[..., asyncio.Protocol] | None = None,
        http: Callable[..., asyncio.Protocol] = GuardedHttp,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=http,  # type: ignore[arg-type]
                ws=websocket or "none",  # type: ignore[arg-type]
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # relay/forwarded.py reads them, for WebSockets too
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
        return self._listener.address

    def stop_accepting(self) -> None:
        """Close the listener; connections that are open stay."""
        for server in self.servers:
            server.close()

    async def run_until_stopped(self) -> None:
        """Serve until ``should_exit`` is set."""
        await self.serve(sockets=self._listener.sockets)
