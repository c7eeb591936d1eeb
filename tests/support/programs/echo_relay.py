"""The relay's acceptor, HTTP and WebSocket layers on a real socket, around sessions that only echo text.

Autobahn tests the WebSocket protocol with an echo server; a relay has a message protocol of its own.
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
from tickertape.relay.transport.http.protocol import GuardedHttp
from tickertape.relay.transport.http.server import HttpServer, listen
from tickertape.relay.transport.websocket.connection import websocket_protocol
from websockets.frames import Frame, Opcode

UNLIMITED = 1_000_000
"""Frames per second: the limit is not part of the WebSocket protocol, and has its own tests."""


class EchoSessions(Sessions):
    """Sessions that send nothing of their own, and echo each message."""

    def open(
        self,
        link: Link,
        request: Request,
        now: float,
        grant: Grant | None = EVERYTHING,
        expected: Filter | None = None,
    ) -> Session:
        """Open a session without sending anything."""
        session = self.add(link, request)
        session.state = State.FOLLOWING
        return session

    def receive(self, session: Session, text: bytes, now: float) -> None:
        """Echo the message."""
        session.send(Frame(Opcode.TEXT, text).serialize(mask=False))


class EchoHub(Hub):
    """Hub with echo sessions."""

    def __init__(self) -> None:
        super().__init__(HubSettings(), lambda: None)
        self.sessions = EchoSessions(
            self.settings, self.log, self.fanout, self.conditions, self.stats, None, None, lambda *_: None
        )


@asynccontextmanager
async def echo_relay() -> AsyncIterator[str]:
    """Serve echoes in this event loop; yield the URL of the feed."""
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
