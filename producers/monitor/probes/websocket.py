"""The ``websocket`` probe: connects, says something if it is to, and waits for what it is to hear."""

import asyncio
from typing import Final

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidHandshake, WebSocketException
from websockets.typing import Subprotocol

from producers.monitor.health import Result
from producers.monitor.probe_settings import WebSocketProbe
from producers.monitor.probes.outcome import answered, describe, failed

MAX_MESSAGE_BYTES: Final = 1024 * 1024
MAX_MESSAGES: Final = 1_000
"""Messages that are listened to before what is expected counts as not said."""

_CLOSE_TIMEOUT: Final = 0.5


async def look(probe: WebSocketProbe, limit: float) -> Result:
    """Probe once, within ``limit`` seconds."""
    clock = asyncio.get_running_loop().time
    began = clock()
    subprotocols = [Subprotocol(probe.subprotocol)] if probe.subprotocol else None
    try:
        async with (
            asyncio.timeout(limit),
            connect(
                probe.url,
                subprotocols=subprotocols,
                additional_headers=probe.headers,
                user_agent_header="tickertape-monitor",
                compression=None,
                ping_interval=None,
                close_timeout=_CLOSE_TIMEOUT,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=None,
                proxy=None,
            ) as connection,
        ):
            if probe.send is not None:
                await connection.send(probe.send)
            if probe.expect is None:
                return answered(clock() - began, probe.degraded_above)
            for _ in range(MAX_MESSAGES):
                message = await connection.recv()
                text = message if isinstance(message, str) else message.decode(errors="replace")
                if probe.expect in text:
                    return answered(clock() - began, probe.degraded_above)
            return failed(f"{MAX_MESSAGES} messages came, and {probe.expect!r} was in none of them")
    except InvalidHandshake as error:
        return failed(f"WebSocket refused: {error}")
    except WebSocketException as error:
        return failed(f"WebSocket broken: {describe(error)}")
