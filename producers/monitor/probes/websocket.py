"""Probe ``websocket``: connect, send a message if configured, and wait for the expected message."""

import asyncio
import contextlib
import time
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from pydantic import field_validator
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.options.secrets import HeaderOptions
from tickertape.producers.monitor.probes.options.tls import TlsOptions
from tickertape.producers.monitor.probes.result import answered, failed, redact
from tickertape.producers.monitor.probes.settings import UrlProbe
from tickertape.producers.monitor.types import Duration, Token, WebSocketUrl
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from tickertape.net.certificates import earliest_expiry
from tickertape.net.outgoing import tls_name

MAX_MESSAGE_BYTES: Final = 1024 * 1024
"""Maximum size of a message from the peer."""

MAX_MESSAGES: Final = 1_000
"""Messages received before the expected one counts as missing."""

PIECE: Final = 512
"""Bytes that are parsed in one turn of the event loop: they may contain 256 pings to answer."""

_CLOSE_GRACE: Final = 0.2
"""Seconds for the closing handshake."""


class WebSocketProbe(HeaderOptions, TlsOptions, UrlProbe):
    """WebSocket connection that answers ``send`` with ``expect``, and stays open for ``hold``."""

    kind: Literal["websocket"]
    url: WebSocketUrl
    subprotocol: Token | None = None
    send: str | None = None
    expect: str | None = None
    """Text that one of the messages must contain."""
    hold: Duration = 0.0

    @field_validator("headers")
    @classmethod
    def _check_host_header(cls, headers: dict[str, str]) -> dict[str, str]:
        if "Host" in headers:
            raise ValueError("'Host' is sent by the probe itself; remove it, and use the name in 'url'")
        return headers

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        connection: ClientConnection | None = None
        headers = self.read_headers()
        tls: dict[str, Any] = {}
        if urlsplit(self.url).scheme == "wss":
            tls["ssl"] = self.ssl_context()
            tls["server_hostname"] = tls_name(self.server_name or self.host or "")
        try:
            async with asyncio.timeout(time_limit):
                # The time limit of the probe covers the handshake, and no proxy from the environment comes
                # between the monitor and the gateway.
                connection = await _Connect(
                    self.url,
                    create_connection=_Connection,
                    subprotocols=[Subprotocol(self.subprotocol)] if self.subprotocol else None,
                    additional_headers=headers.all,
                    user_agent_header="tickertape-monitor",
                    compression=None,
                    ping_interval=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=None,
                    proxy=None,
                    **tls,
                )
                received = await _exchange(self, connection)
            latency = clock() - started
            expires = earliest_expiry(connection.transport.get_extra_info("ssl_object"))
            if received and (held := await _hold(connection, self.hold)) is not None:
                expected = f"expected at least {self.hold:g} s"
                return failed(f"peer closed the connection after {held:.1f} s; {expected}", latency)
        except InvalidHandshake as error:
            return failed(f"WebSocket handshake rejected: {redact(str(error), headers.secrets)}")
        except WebSocketException as error:
            return failed(f"WebSocket failed: {redact(str(error), headers.secrets)}")
        finally:
            if connection is not None:
                await _close(connection)
        if not received:
            return failed(f"{self.expect!r} not in the first {MAX_MESSAGES} messages")
        return answered(latency, self.degraded_above, expires)


class _Connect(connect):
    """Connecting that does not send the headers of the probe to another host."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        """Return the address of a redirect to the same host and port; return the error for any other."""
        target = super().process_redirect(exc)
        if isinstance(target, str) and urlsplit(target).netloc != urlsplit(self.uri).netloc:
            return exc
        return target


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


async def _hold(connection: ClientConnection, seconds: float) -> float | None:
    """Return the seconds after which the peer has closed the connection; None if it has not."""
    if not seconds:
        return None
    started = time.monotonic()
    try:
        async with asyncio.timeout(seconds):
            # Discard the messages: all that matters is that the peer does not close the connection.
            while True:
                await connection.recv()
    except ConnectionClosed:
        return time.monotonic() - started
    except TimeoutError:
        return None


async def _close(connection: ClientConnection) -> None:
    """Close the connection; abort it if the peer does not complete the closing handshake in time."""
    with contextlib.suppress(TimeoutError, WebSocketException):
        async with asyncio.timeout(_CLOSE_GRACE):
            await connection.close()
    connection.transport.abort()
