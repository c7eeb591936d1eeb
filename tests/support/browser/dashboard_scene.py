"""A dashboard that shows everything: every status, every level, a gap, a traceback, components.

For the tests of the whole page: accessibility, keyboard, screenshots.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

from playwright.async_api import TimeoutError, expect
from tickertape.contracts.events import EventModel, GatewayRecovery, GatewayStatusChange, Status, SystemHealth

from tests.support.browser.browser_desk import Desk, open_desk
from tests.support.browser.log_desk import log
from tests.support.servers.nats_server import NatsServer

TRACE: Final = (
    "Traceback (most recent call last):\n"
    '  File "/srv/desk/orders.py", line 214, in send\n'
    "    await self._gateway.submit(order)\n"
    "ConnectionRefusedError: [Errno 111] connect call failed ('10.20.0.7', 41205)"
)
RATE: Final = 20
"""Log events per second that the page may receive, low enough for a flood to leave a gap."""

FLOOD: Final = 200
AGAIN_MS: Final = 2_000

MAIN: Final = "ctp.main"
"""The gateway with the longest history, and with a group."""

LINES: Final = {
    "DEBUG": "heartbeat answered in 3.1 ms",
    "INFO": "order 8f31 accepted by the exchange, filled at 3,912.5",
    "WARN": "quote of IF2412 is 4 s old",
    "ERROR": "order 8f32 was not sent",
    "CRITICAL": "risk limit of account 7 is exceeded, trading stops",
}
"""One message per level; the line with the traceback is the one of ERROR."""


def change(
    gateway: str, previous: Status, current: Status, kind: str = "ctp", **metadata: Any
) -> GatewayStatusChange:
    """Return a status change as a monitor publishes it."""
    return GatewayStatusChange(
        gateway_id=gateway,
        gateway_type=kind,
        previous_status=previous,
        current_status=current,
        metadata=metadata,
    )


def gateways() -> list[EventModel]:
    """Return gateways in every status, one flapping, one silenced, one with many states, and two
    components.
    """
    up, down = Status.HEALTHY, Status.UNHEALTHY
    bad: dict[str, Any] = {
        "error": "connect call failed: connection refused",
        "probe": "tcp 10.20.0.7:41205",
        "probes": {"tcp 10.20.0.7:41205": "UNHEALTHY", "http front/health": "HEALTHY"},
        "group": "futures",
    }
    silence = {"until": "2099-01-01T00:00:00Z", "by": "anna", "why": "the exchange moves its front"}
    past: list[EventModel] = []
    for number in range(12):
        turn = (up, down) if number % 2 else (down, up)
        past.append(change(MAIN, *turn, latency_ms=8 + number * 3.5, **(bad if turn[1] == down else {})))
    past += [
        change("ctp.reserve", up, Status.DEGRADED, latency_ms=412.0, group="futures", probe="latency"),
        change("femas.north", down, Status.RECOVERING, "femas", group="options", flapping=True),
        change("fix.broker-a", up, down, "fix", silenced=silence, **bad),
        change("fix.broker-b", Status.UNKNOWN, up, "fix", latency_ms=3.2, group="equities"),
        change("mock", up, Status.UNKNOWN, "mock", error="no response from the monitor"),
        change("xtp.night", up, Status.OFF_SESSION, "xtp", group="equities"),
        GatewayRecovery(gateway_id="femas.north", gateway_type="femas", phase="attempt", attempt=2),
        SystemHealth(component="monitor", instance="m1", status=Status.HEALTHY),
        SystemHealth(component="shipper", status=Status.DEGRADED),
    ]
    return past


async def fill(desk: Desk) -> None:
    """Flood the log until a gap reports it, then publish a line of each level until it is displayed."""
    await asyncio.gather(*(desk.log(f"flood {number:03}") for number in range(FLOOD)))
    await expect(desk.page.locator('#feed .row[data-kind="gap"]').first).to_be_attached()
    for level, message in LINES.items():
        trace = {"exception": TRACE, "account": 7} if level == "ERROR" else {}
        event = log(message, level, "orders", **trace)
        # The relay drops the lowest levels first, until the rate limit has capacity again.
        while True:
            await desk.publish(event)
            with suppress(TimeoutError):
                await desk.line(message).first.wait_for(timeout=AGAIN_MS)
                break


@asynccontextmanager
async def open_scene(server: NatsServer, folder: Path) -> AsyncIterator[Desk]:
    """Open a page that shows all of this."""
    async with open_desk(server, folder, *gateways(), client_rate=RATE) as desk:
        await fill(desk)
        yield desk


__all__ = ["LINES", "MAIN", "TRACE", "change", "fill", "gateways", "open_scene"]
