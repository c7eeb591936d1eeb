"""The ``websocket`` probe: connects, says something if it is to, and waits for what it is to hear."""

import asyncio
import contextlib
import time
from typing import Final, Literal

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import answered, describe, failed
from tickertape.producers.monitor.probes.settings import UrlProbe
from tickertape.producers.monitor.types import WebSocketUrl
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_MESSAGES: Final = 1_000
"""Messages that are listened to before what is expected counts as not said."""

_CLOSE_GRACE: Final = 0.2


class WebSocketProbe(UrlProbe):
    """Connects, sends ``send``, and waits for a message that holds ``expect``."""

    kind: Literal["websocket"]
    url: WebSocketUrl
    subprotocol: str | None = None
    headers: dict[str, str] = Field(default={}, repr=False)
    send: str | None = None
    expect: str | None = None

    async def probe(self, limit: float, context: ProbeContext) -> Result:
        clock = time.monotonic  # the loop's own clock stands still within a turn
        began = clock()
        connection: ClientConnection | None = None
        try:
            async with asyncio.timeout(limit):
                connection = await connect(
                    self.url,
                    subprotocols=[Subprotocol(self.subprotocol)] if self.subprotocol else None,
                    additional_headers=self.headers,
                    user_agent_header="tickertape-monitor",
                    compression=None,
                    ping_interval=None,
                    max_size=MAX_MESSAGE_BYTES,
                    open_timeout=None,
                    proxy=None,
                )
                heard = await _talk(self, connection)
        except InvalidHandshake as error:
            return failed(f"WebSocket refused: {error}")
        except WebSocketException as error:
            return failed(f"WebSocket broken: {describe(error)}")
        finally:
            if connection is not None:
                await _hang_up(connection)
        if not heard:
            return failed(f"{MAX_MESSAGES} messages came, and {self.expect!r} was in none of them")
        return answered(clock() - began, self.degraded_above)


async def _talk(probe: WebSocketProbe, connection: ClientConnection) -> bool:
    """Say what is to be said; True when what is to be heard was."""
    if probe.send is not None:
        await connection.send(probe.send)
    if probe.expect is None:
        return True
    for _ in range(MAX_MESSAGES):
        message = await connection.recv()
        if probe.expect in (message if isinstance(message, str) else message.decode(errors="replace")):
            return True
    return False


async def _hang_up(connection: ClientConnection) -> None:
    """Say goodbye; one who talks too much to hear it is cut off."""
    with contextlib.suppress(TimeoutError, WebSocketException):
        async with asyncio.timeout(_CLOSE_GRACE):
            await connection.close()
    connection.transport.abort()
