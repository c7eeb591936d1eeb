"""The charts of the dashboard in a real browser.

Every wait is for a state of the page, none for a time. Drawn data is read from the canvas by the colours of
the style sheet; descriptions are read from the labels for screen readers.
"""

import asyncio
import os
import re
import time
from pathlib import Path
from typing import Final

import pytest
from tickertape.contracts.events import GatewayStatusChange, format_time

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Locator, Page, Route, expect

from tests.support.browser.browser_desk import Desk, open_desk, run

pytestmark = pytest.mark.browser

DRAWN: Final = """
(box, name) => {
  const probe = document.createElement("i");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const [r, g, b] = getComputedStyle(probe).color.match(/[0-9]+/g).map(Number);
  probe.remove();
  const canvas = box.querySelector("canvas");
  if (!canvas) return -1;
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let pixels = 0;
  const near = (i) => Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 12;
  for (let i = 0; i < data.length; i += 4) if (data[i + 3] > 100 && near(i)) pixels += 1;
  return pixels;
}
"""
"""Count the pixels of a chart in a colour of the style sheet; -1 without a chart."""


async def expect_colour(box: Locator, colour: str, present: bool = True) -> None:
    """Wait until a chart contains pixels of a colour, or none of them."""
    async with asyncio.timeout(PATIENCE):
        while (pixels := await box.evaluate(DRAWN, colour)) < 0 or (pixels > 0) != present:
            await asyncio.sleep(0.05)


async def expect_label(page: Page, pattern: str) -> None:
    """Wait until the label of the rate chart matches."""
    await expect(page.locator("#flow-chart")).to_have_attribute("aria-label", re.compile(pattern))


async def abort(route: Route) -> None:
    """Fail a request as if there were no network."""
    await route.abort()


async def publish_latencies(desk: Desk, *latencies: float | None, ago: int) -> None:
    """Publish reports of a gateway one minute apart, UNHEALTHY where the latency is None."""
    now = time.time()
    for number, latency in enumerate(latencies):
        fields = {
            "gateway_id": "ctp.main",
            "gateway_type": "ctp",
            "timestamp": format_time(now - (ago - number) * 60),
            "previous_status": "UNKNOWN",
            "current_status": "UNHEALTHY" if latency is None else "HEALTHY",
            "metadata": {} if latency is None else {"latency_ms": latency},
        }
        await desk.publish(GatewayStatusChange.model_validate(fields))


def test_each_level_is_drawn_and_described(nats_server: NatsServer, tmp_path: Path) -> None:
    """Each level has its colour, even a single event among many; arrow keys show a second's numbers."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, flow = desk.page, desk.page.locator("#flow-chart")
            await expect(flow).to_have_attribute("role", "img")
            await expect_label(page, "Events per second over the last 5 minutes: none")
            await expect_colour(flow, "--level-error", present=False)
            for number in range(300):
                await desk.log(f"line {number}")
            for level in ("WARN", "ERROR", "CRITICAL"):
                await desk.log("loud", level)
            await expect_label(page, ": 1 critical, 1 error, 1 warn, 300 info; at most ")
            for colour in ("--level-critical", "--level-error", "--level-warn", "--level-info"):
                await expect_colour(flow, colour)
            await flow.focus()
            tip = page.locator(".chart-tip:visible")
            async with asyncio.timeout(PATIENCE):
                while not (await tip.count() and "1 critical" in await tip.inner_text()):
                    await page.keyboard.press("ArrowLeft")
            await expect(tip).to_contain_text(re.compile(r"\d\d:\d\d:\d\d · \d+ events?"))
            await page.keyboard.press("Escape")
            await expect(tip).to_have_count(0)

    run(work())


def test_a_change_of_theme_redraws_the_chart(nats_server: NatsServer, tmp_path: Path) -> None:
    """The chart is redrawn when the theme changes, by the button or by the system."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, flow = desk.page, desk.page.locator("#flow-chart")
            await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
            await page.reload()
            await desk.live()
            await desk.log("broken", "CRITICAL")
            await expect_colour(flow, "--level-critical")
            await page.emulate_media(color_scheme="light")
            await expect_colour(flow, "--level-critical")
            await page.locator("#theme").click()
            await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
            await expect_colour(flow, "--level-critical")

    run(work())


def test_seconds_without_a_connection_are_marked(nats_server: NatsServer, tmp_path: Path) -> None:
    """The chart marks the seconds while the relay is down."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            flow = desk.page.locator("#flow-chart")
            await expect_colour(flow, "--level-disconnected", present=False)
            await desk.relay.stop()
            await expect_colour(flow, "--level-disconnected")
            await desk.relay.start()
            await desk.live()
            await expect_colour(flow, "--level-disconnected")

    run(work())


def test_a_history_charts_the_latencies(nats_server: NatsServer, tmp_path: Path) -> None:
    """A history charts its latencies and names their extremes; hovering works without the network."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, chart = desk.page, desk.page.locator(".history-latency")
            await publish_latencies(desk, 12.0, ago=9)
            await expect(desk.tile("ctp.main")).to_be_visible()
            await page.wait_for_function("typeof uPlot === 'function'")
            await page.route("**/assets/**", abort)
            await desk.tile("ctp.main").locator(".tile-name").click()
            await expect(page.locator("#history .past")).to_have_count(1)
            await expect(chart).to_be_hidden()
            await publish_latencies(desk, None, 40.0, 13.0, ago=8)
            await expect(chart).to_have_attribute(
                "aria-label", re.compile("Latency in 3 reports from .*: 12 ms to 40 ms, the last 13 ms")
            )
            await expect_colour(chart, "--accent")
            await expect_colour(chart, "--red-wash")
            box = await chart.bounding_box()
            assert box
            await page.mouse.move(box["x"] + box["width"] - 16, box["y"] + 30)
            await expect(page.locator(".chart-tip:visible")).to_contain_text(re.compile("13 ms.*HEALTHY"))
            await page.locator("#history button", has_text="Close").click()
            await expect(page.locator(".chart-tip:visible")).to_have_count(0)

    run(work())


def test_the_page_works_without_charts(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page shows its data and labels even if the chart library cannot be loaded."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            await page.route("**/vendor/**", abort)
            await page.reload()
            await desk.live()
            await desk.log("still here", "ERROR")
            await expect(desk.line("still here")).to_be_visible()
            await expect_label(page, ": 1 error; at most 1 in one second")
            await expect(page.locator("#flow-chart canvas")).to_have_count(0)

    run(work())
