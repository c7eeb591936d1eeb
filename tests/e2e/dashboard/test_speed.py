"""The dashboard under load in a real browser: a thousand changing gateways, and a continuous log.

Counts are asserted: reorderings, tiles, rows and heap size. Frame times are only printed, because the machine
is shared and has no GPU. ``CHAOS=full`` runs ten minutes of log.
"""

import asyncio
import os
import random
from pathlib import Path
from typing import Final

import nats
import pytest
from nats.aio.client import Client
from tickertape.contracts.events import GatewayStatusChange, Status

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import CDPSession, expect

from tests.support.browser.browser_desk import PATIENCE_MS, Desk, open_desk, run
from tests.support.browser.log_desk import log

pytestmark = pytest.mark.browser

FULL: Final = os.environ.get("CHAOS") == "full"
GATEWAYS: Final = 1_000
CHANGES: Final = 4_000 if FULL else 1_600
CHANGES_PER_SECOND: Final = 400.0
KEPT: Final = 50_000
"""Maximum number of lines that the page keeps."""

EXTRA: Final = 600_000 if FULL else 30_000
"""Additional lines; in a full run more than the maximum, so that every kept line is replaced."""

GROWTH_MB: Final = 20.0
CHUNK: Final = 5_000
LATE_FRAME_MS: Final = 34.0

FRAMES: Final = """() => {
  const gaps = [];
  let last = performance.now();
  let running = true;
  const onFrame = (now) => {
    gaps.push(now - last);
    last = now;
    if (running) requestAnimationFrame(onFrame);
  };
  requestAnimationFrame(onFrame);
  window.frames_end = () => {
    running = false;
    return gaps.slice(1);
  };
}"""
"""Record the intervals between frames until ``frames_end`` is called."""

MOVES: Final = """() => {
  const start = performance.now();
  let times = 0;
  const observer = new MutationObserver(() => (times += 1));
  observer.observe(document.getElementById("tiles"), { childList: true });
  window.moves_end = () => [times, (performance.now() - start) / 1000];
}"""
"""Count the reorderings of tiles, and the seconds, until ``moves_end`` is called."""


def describe(gaps: list[float]) -> str:
    """Format frame intervals as a summary."""
    ordered = sorted(gaps)
    late = sum(1 for gap in ordered if gap > LATE_FRAME_MS) / len(ordered)
    return (
        f"{len(ordered)} frames, median {ordered[len(ordered) // 2]:.1f} ms, "
        f"99 % within {ordered[int(len(ordered) * 0.99)]:.1f} ms, worst {ordered[-1]:.0f} ms, "
        f"{late:.2%} above {LATE_FRAME_MS:.0f} ms"
    )


async def costs(devtools: CDPSession) -> dict[str, float]:
    """Return the main thread's CPU time in milliseconds by kind, and its number of layouts."""
    metrics = {
        metric["name"]: float(metric["value"])
        for metric in (await devtools.send("Performance.getMetrics"))["metrics"]
    }
    names = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration", "TaskDuration")
    return {name.removesuffix("Duration"): metrics[name] * 1_000 for name in names} | {
        "Layouts": metrics["LayoutCount"]
    }


class Fleet:
    """Gateways that change pseudo-randomly, published without waiting for acknowledgements."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._random = random.Random(8)
        self.status = [Status.HEALTHY] * GATEWAYS

    async def change(self, number: int) -> None:
        """Publish a change of one gateway."""
        before, error = self.status[number], {}
        after = self._random.choice(
            [status for status in (Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY) if status != before]
        )
        if after is Status.UNHEALTHY:
            error = {"error": "connection refused", "probe": "tcp"}
        metadata = {
            "latency_ms": round(self._random.uniform(1, 60), 1),
            "group": f"desk {number % 12}",
            **error,
        }
        event = GatewayStatusChange(
            gateway_id=f"gw {number:04}",
            gateway_type="ctp",
            previous_status=before,
            current_status=after,
            metadata=metadata,
        )
        self.status[number] = after
        await self._client.publish(event.subject, event.encode())

    async def changes(self, number: int, per_second: float) -> None:
        """Publish changes at a constant rate."""
        clock = asyncio.get_running_loop().time
        start = clock()
        for batch in range(0, number, 4):
            for _ in range(4):
                await self.change(self._random.randrange(GATEWAYS))
            await asyncio.sleep(start + (batch + 4) / per_second - clock())
        await self._client.flush()


class Lines:
    """Log lines, published without waiting for acknowledgements."""

    def __init__(self, client: Client, desk: Desk) -> None:
        self._client = client
        self._desk = desk
        self.sent = 0

    async def send(self, number: int, per_second: float) -> None:
        """Publish lines at a constant rate, and wait until the last is in view."""
        clock = asyncio.get_running_loop().time
        start = clock()
        for batch in range(0, number, 20):
            for _ in range(20):
                event = log(f"order {self.sent:07} accepted by the exchange, filled at 3,912.5")
                await self._client.publish(event.subject, event.encode())
                self.sent += 1
            await asyncio.sleep(start + (batch + 20) / per_second - clock())
        await self._client.flush()
        await expect(self._desk.line(f"order {self.sent - 1:07}")).to_be_in_viewport(timeout=3 * PATIENCE_MS)


def test_a_thousand_gateways_change_continuously(nats_server: NatsServer, tmp_path: Path) -> None:
    """Tiles are reordered at most once per second, built only near the view, and correct at the end."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            client = await nats.connect(nats_server.url)
            try:
                fleet = Fleet(client)
                for number in range(GATEWAYS):
                    await fleet.change(number)
                await expect(page.locator(".tile[data-status]")).to_have_count(GATEWAYS)
                devtools = await page.context.new_cdp_session(page)
                await devtools.send("Performance.enable", {"timeDomain": "threadTicks"})
                await page.evaluate(MOVES)
                await page.evaluate(FRAMES)
                before = await costs(devtools)
                await fleet.changes(CHANGES, CHANGES_PER_SECOND)
                after = await costs(devtools)
                gaps = await page.evaluate("window.frames_end()")
                times, seconds = await page.evaluate("window.moves_end()")
            finally:
                await client.close()
            per_frame = {name: round((after[name] - before[name]) / len(gaps), 2) for name in before}
            print(
                f"{CHANGES_PER_SECOND:.0f} changes a second: {describe(gaps)}; "
                f"ms of the main thread per frame: {per_frame}"
            )
            assert 2 <= times <= seconds + 2
            for status in (Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY):
                tiles = page.locator(f'.tile[data-status="{status}"]')
                await expect(tiles).to_have_count(fleet.status.count(status))
            worst = fleet.status.index(Status.UNHEALTHY)
            await expect(page.locator(".tile-name").first).to_have_text(f"gw {worst:04}")
            # Only a few dozen fit into the view.
            assert await page.locator(".tile-bar").count() < 100

    run(work())


def test_the_heap_does_not_grow_with_the_log(nats_server: NatsServer, tmp_path: Path) -> None:
    """With 50 000 lines kept, more lines do not grow the heap or the number of rows."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            devtools = await page.context.new_cdp_session(page)

            async def heap() -> float:
                await devtools.send("HeapProfiler.collectGarbage")
                return float((await devtools.send("Runtime.getHeapUsage"))["usedSize"]) / 2**20

            empty = await heap()
            client = await nats.connect(nats_server.url)
            try:
                lines = Lines(client, desk)
                while await page.locator("#log-counts").inner_text() != f"{KEPT:,}":
                    await lines.send(CHUNK, CHUNK)
                full = await heap()
                await page.evaluate(FRAMES)
                if FULL:
                    await lines.send(EXTRA, 1_000)
                else:
                    for _ in range(0, EXTRA, CHUNK):
                        await lines.send(CHUNK, CHUNK)
                gaps = await page.evaluate("window.frames_end()")
            finally:
                await client.close()
            end = await heap()
            print(
                f"heap: {empty:.1f} MB empty, {full:.1f} MB with {KEPT:,} lines, "
                f"{end:.1f} MB after {EXTRA:,} more; {describe(gaps)}"
            )
            assert await page.locator("#log-counts").inner_text() == f"{KEPT:,}"
            assert await page.locator("#feed .row").count() < 120
            assert end - full <= GROWTH_MB
            assert full - empty <= GROWTH_MB

    run(work())
