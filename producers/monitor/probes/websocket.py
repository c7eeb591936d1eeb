"""Probe ``websocket``: connect, send a message if configured, and wait for the expected message."""

import asyncio
import contextlib
import time
from typing import Any, Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import answered, failed, redact
from tickertape.producers.monitor.probes.settings import UrlProbe
from tickertape.producers.monitor.types import WebSocketUrl
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Maximum size of a message from the peer."""

MAX_MESSAGES: Final = 1_000
"""Messages received before the expected one counts as missing."""

PIECE: Final = 512
"""Bytes that are parsed in one turn of the event loop: they may contain 256 pings to answer."""

_CLOSE_GRACE: Final = 0.2
"""Seconds for the closing handshake."""


class WebSocketProbe(UrlProbe):
    """WebSocket connection that sends ``send`` and waits for a message that contains ``expect``."""

    kind: Literal["websocket"]
    url: WebSocketUrl
    subprotocol: str | None = None
    headers: dict[str, str] = Field(default={}, repr=False)
    send: str | None = None
    expect: str | None = None

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        connection: ClientConnection | None = None
        try:
            async with asyncio.timeout(time_limit):
                # The time limit of the probe covers the handshake, and no proxy from the environment comes
                # between the monitor and the gateway.
                connection = await connect(
                    self.url,
                    create_connection=_Connection,
                    subprotocols=[Subprotocol(self.subprotocol)] if self.subprotocol else None,
                    additional_headers=self.headers,
                    user_agent_header="tickertape-monitor",
                    compression=None,
                    ping_interval=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=None,
                    proxy=None,
                )
                received = await _exchange(self, connection)
        except InvalidHandshake as error:
            return failed(f"WebSocket handshake rejected: {redact(str(error), self.headers)}")
        except WebSocketException as error:
            return failed(f"WebSocket failed: {redact(str(error), self.headers)}")
        finally:
            if connection is not None:
                await _close(connection)
        if not received:
            return failed(f"{self.expect!r} not in the first {MAX_MESSAGES} messages")
        return answered(clock() - started, self.degraded_above)


class _Connection(ClientConnection):
    """Connection that lets the event loop turn while it parses, however fast the peer sends."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        """Parse the first piece of the data, and the others later."""
        # Nothing is read meanwhile, so the end of the connection follows the last piece.
        self._received += data
        self.transport.pause_reading()
        self._parse_next()

    def _parse_next(self) -> None:
        piece, self._received = self._received[:PIECE], self._received[PIECE:]
        super().data_received(piece)
        if self.transport.is_closing():
            return
        if self._received:
            self.loop.call_soon(self._parse_next)
        else:
            self.transport.resume_reading()


async def _exchange(probe: WebSocketProbe, connection: ClientConnection) -> bool:
    """Send the message, if any; return whether the expected message was received."""
    if probe.send is not None:
        await connection.send(probe.send)
    if probe.expect is None:
        return True
    for _ in range(MAX_MESSAGES):
        message = await connection.recv()
        if probe.expect in (message if isinstance(message, str) else message.decode(errors="replace")):
            return True
    return False


async def _close(connection: ClientConnection) -> None:
    """Close the connection; abort it if the peer does not complete the closing handshake in time."""
    with contextlib.suppress(TimeoutError, WebSocketException):
        async with asyncio.timeout(_CLOSE_GRACE):
            await connection.close()
    connection.transport.abort()
