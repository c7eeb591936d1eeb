"""The relay's own door, HTTP and WebSocket layers, on a real socket, around sessions that only echo text.

What Autobahn looks at is the protocol; a relay answers messages in a protocol of its own, an echo in that.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.types import Receive, Scope, Send
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.core.session.session import Link, Session, State
from tickertape.relay.core.session.sessions import Sessions
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.transport.acceptor import Acceptor
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http_protocol import GuardedHttp
from tickertape.relay.transport.http_server import HttpServer, listen
from tickertape.relay.transport.websocket import websocket_protocol
from websockets.frames import Frame, Opcode

UNLIMITED = 1_000_000
"""Frames per second: the limit is no part of the protocol, and has tests of its own."""


class EchoSessions(Sessions):
    """Sessions that say nothing of their own, and send each message back."""

    def open(
        self,
        link: Link,
        request: Request,
        now: float,
        grant: Grant | None = EVERYTHING,
        wanted: Filter | None = None,
    ) -> Session:
        """Begin a session without a word."""
        session = self.add(link, request)
        session.state = State.FOLLOWING
        return session

    def receive(self, session: Session, text: bytes, now: float) -> None:
        """Send it back."""
        session.send(Frame(Opcode.TEXT, text).serialize(mask=False))


class EchoHub(Hub):
    """A hub of such sessions."""

    def __init__(self) -> None:
        super().__init__(HubSettings(), lambda: None)
        self.sessions = EchoSessions(
            self.settings, self.log, self.snapshot, self.fanout, self.stats, None, None, lambda *_: None
        )


@asynccontextmanager
async def echo_relay() -> AsyncIterator[str]:
    """Serve echoes, in this event loop; yields the address of the feed."""
    connections = Connections(EchoHub(), time.monotonic, message_rate=UNLIMITED)
    acceptor = Acceptor(connections.admission, time.monotonic, GuardedHttp)
    listener = listen("127.0.0.1", 0, "--port")
    server = HttpServer(_no_pages, listener, websocket_protocol(connections), acceptor.protocol)
    serving = asyncio.create_task(server.run_until_stopped())
    try:
        yield f"ws://{server.address}/ws"
    finally:
        server.should_exit = True
        await serving


async def _no_pages(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError(scope["path"])
