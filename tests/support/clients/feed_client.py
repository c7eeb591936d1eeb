"""A client of a real relay: a connection of the ``websockets`` library, parsed by the contract's models.

The client checks that every message is legal and that cursors never go back.
"""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar
from urllib.parse import urlencode

import nats
import orjson
from nats.aio.client import Client as Nats
from nats.js import JetStreamContext
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import EventModel, GatewayStatusChange, Status, SystemLog
from tickertape.contracts.messages import (
    MAX_MESSAGE_BYTES,
    SUBPROTOCOL,
    Events,
    Gap,
    RelayMessage,
    relay_message,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.clients.fake_link import only, seqs
from tests.support.patience import PATIENCE as PATIENCE

ACKNOWLEDGED_EVERY: Final = 500
"""Messages of a burst for one acknowledgement."""

M = TypeVar("M")
T = TypeVar("T")


def run(work: Coroutine[Any, Any, T], timeout: float = 2 * PATIENCE) -> T:
    """Run the body of a test; raise TimeoutError if it does not finish."""
    return asyncio.run(asyncio.wait_for(work, timeout))


class FeedClient:
    """Reader of a feed that keeps all messages.

    Attributes:
        messages: messages since the beginning, or since the last ``forget``.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.messages: list[RelayMessage] = []
        self._place = -1

    async def read(self) -> RelayMessage:
        """Return the next message."""
        async with asyncio.timeout(PATIENCE):
            text = await self.socket.recv(decode=False)
        message = relay_message.validate_json(text)
        if isinstance(message, Events):
            position = parse_cursor(message.cursor)[1]
            assert position >= self._place, "places do not go back"
            self._place = position
        self.messages.append(message)
        return message

    async def until(self, condition: Callable[[], bool]) -> None:
        """Read until a condition holds for the messages received."""
        try:
            while not condition():
                await self.read()
        except (TimeoutError, asyncio.CancelledError) as error:
            kinds = Counter(type(message).__name__ for message in self.messages)
            error.add_note(
                f"received {dict(kinds)}, {len(self.seqs())} events, gaps {only(self.messages, Gap)}"
            )
            raise

    async def one(self, kind: type[M]) -> M:
        """Return the next message of a type."""
        while True:
            message = await self.read()
            if isinstance(message, kind):
                return message

    async def events(self, count: int) -> list[dict[str, Any]]:
        """Read until a total number of events has arrived; return all their bodies in order."""
        await self.until(lambda: len(self.seqs()) >= count)
        return [item.event for message in only(self.messages, Events) for item in message.events]

    async def texts(self, count: int) -> list[str]:
        """Read until a total number of events has arrived; return their messages."""
        return [event["message"] for event in await self.events(count)]

    def seqs(self) -> list[int]:
        """Return the sequences of the events received."""
        return seqs(self.messages)

    @property
    def cursor(self) -> str:
        """Last cursor received."""
        return [message.cursor for message in self.messages if hasattr(message, "cursor")][-1]

    def reset(self) -> None:
        """Start over, as a client does after a ``reset``."""
        self._place = -1

    async def send_message(self, **message: Any) -> None:
        """Send a message."""
        await self.socket.send(orjson.dumps(message).decode())

    async def closed(self) -> int:
        """Read until the connection closes; return the close code."""
        try:
            while True:
                await self.read()
        except ConnectionClosed as error:
            return error.rcvd.code if error.rcvd is not None else 1006


@asynccontextmanager
async def patiently(url: str, **options: Any) -> AsyncIterator[ClientConnection]:
    """Open a connection that a busy machine may delay: timeouts are disabled, and a late request head is sent
    again.

    Args:
        url: URL of the feed.
        options: further arguments of ``websockets.asyncio.client.connect``.
    """
    while True:
        try:
            socket = await connect(
                url, proxy=None, open_timeout=PATIENCE, close_timeout=2.0, ping_interval=None, **options
            )
            break
        except InvalidStatus as error:
            if error.response.status_code != 408:
                raise
    async with socket:
        yield socket


@asynccontextmanager
async def follow(
    ws_url: str,
    *,
    protocol: bool = True,
    live: bool = True,
    token: str | None = None,
    source: str | None = None,
    context: ssl.SSLContext | None = None,
    **query: object,
) -> AsyncIterator[FeedClient]:
    """Connect to a feed.

    Args:
        ws_url: URL of the relay's feed.
        protocol: offer ``tickertape.v1``.
        live: read up to ``subscribed`` and the end of the snapshot, if there is one.
        token: sent as ``Authorization: Bearer``.
        source: source address; each address of 127.0.0.0/8 is a different client to the relay.
        context: TLS context; required for ``wss``.
        query: query parameters of the protocol.
    """
    url = f"{ws_url}?{urlencode(query)}" if query else ws_url
    async with patiently(
        url,
        subprotocols=[Subprotocol(SUBPROTOCOL)] if protocol else None,
        additional_headers={} if token is None else {"Authorization": f"Bearer {token}"},
        local_addr=None if source is None else (source, 0),
        **({} if context is None else {"ssl": context}),  # the default verifies with the system's authorities
        compression=None,
        max_size=MAX_MESSAGE_BYTES,
        max_queue=None,
    ) as socket:
        client = FeedClient(socket)
        if live:
            await client.until(lambda: any(m.type == "subscribed" for m in client.messages))
            if not client.messages[-1].resumed:  # type: ignore[union-attr]
                await client.until(lambda: getattr(client.messages[-1], "done", False))
        yield client


@asynccontextmanager
async def connection(nats_url: str) -> AsyncIterator[Nats]:
    """Connect a plain NATS client."""
    servers = nats_url.split(",")
    nc = await nats.connect(servers, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    try:
        yield nc
    finally:
        await nc.close()


@asynccontextmanager
async def jetstream(nats_url: str) -> AsyncIterator[JetStreamContext]:
    """Connect a JetStream client."""
    async with connection(nats_url) as nc:
        yield nc.jetstream(timeout=PATIENCE)


async def publish(js: JetStreamContext, event: EventModel, prefix: str = "", **headers: str) -> int:
    """Publish an event until it is acknowledged; return its sequence."""
    ack = await js.publish(prefix + event.subject, event.encode(), headers=headers or None)
    return ack.seq


async def publish_burst(client: Nats, messages: Iterable[tuple[str, bytes]]) -> int:
    """Publish messages, as pairs of subject and body, as fast as one stream stores them.

    Each ``ACKNOWLEDGED_EVERY``th waits for its acknowledgement: nats-server drops messages to a stream when
    10 000 wait to be stored.

    Returns:
        sequence of the last one.
    """
    js = client.jetstream(timeout=PATIENCE)
    last = -1
    pending: tuple[str, bytes] | None = None
    for number, (subject, body) in enumerate(messages, 1):
        if pending is not None:
            await client.publish(*pending)
        pending = subject, body
        if number % ACKNOWLEDGED_EVERY == 0:
            last = (await js.publish(*pending)).seq
            pending = None
    return last if pending is None else (await js.publish(*pending)).seq


def line(message: str, level: str = "INFO", source: str = "x") -> SystemLog:
    """Return a log line."""
    return SystemLog.model_validate({"level": level, "message": message, "source": source})


def status(gateway: str = "a", current: Status = Status.HEALTHY) -> GatewayStatusChange:
    """Return a status of a gateway."""
    return GatewayStatusChange(
        gateway_id=gateway, gateway_type="ctp", previous_status=Status.UNKNOWN, current_status=current
    )
