"""The charts of the dashboard in a real browser: what they say, what they draw, and what is without them.

Every wait is for a state of the page, none for a time. What is drawn is read from the canvas, by the
colours of the style sheet; what is said, from the label that a reader of a screen gets.
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
"""How many pixels of a chart have a colour of the style sheet, as it is now; -1 without a chart."""


async def draws(box: Locator, colour: str, some: bool = True) -> None:
    """Wait until a chart has something in a colour, or nothing."""
    async with asyncio.timeout(PATIENCE):
        while (pixels := await box.evaluate(DRAWN, colour)) < 0 or (pixels > 0) != some:
            await asyncio.sleep(0.05)


async def says(page: Page, pattern: str) -> None:
    """Wait until the strip's label has this in it."""
    await expect(page.locator("#flow-chart")).to_have_attribute("aria-label", re.compile(pattern))


async def gone(route: Route) -> None:
    """Answer as a network that is not there."""
    await route.abort()


async def measured(desk: Desk, *latencies: float | None, ago: int) -> None:
    """Have a gateway report latencies, a minute after each other, and be down where there is none."""
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


def test_each_level_is_drawn_and_said(nats_server: NatsServer, tmp_path: Path) -> None:
    """In its colour, also one among many; a key finds the second, and the tip has its numbers."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, flow = desk.page, desk.page.locator("#flow-chart")
            await expect(flow).to_have_attribute("role", "img")
            await says(page, "Events per second over the last 5 minutes: none")
            await draws(flow, "--level-error", some=False)
            for number in range(300):
                await desk.log(f"line {number}")
            for level in ("WARN", "ERROR", "CRITICAL"):
                await desk.log("loud", level)
            await says(page, ": 1 critical, 1 error, 1 warn, 300 info; at most ")
            for colour in ("--level-critical", "--level-error", "--level-warn", "--level-info"):
                await draws(flow, colour)
            await flow.focus()
            tip = page.locator(".chart-tip:visible")
            async with asyncio.timeout(PATIENCE):
                while not (await tip.count() and "1 critical" in await tip.inner_text()):
                    await page.keyboard.press("ArrowLeft")
            await expect(tip).to_contain_text(re.compile(r"\d\d:\d\d:\d\d · \d+ events?"))
            await page.keyboard.press("Escape")
            await expect(tip).to_have_count(0)

    run(work())


def test_a_change_of_theme_draws_anew(nats_server: NatsServer, tmp_path: Path) -> None:
    """By the switch, and by the system."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, flow = desk.page, desk.page.locator("#flow-chart")
            await page.emulate_media(color_scheme="dark", reduced_motion="reduce")
            await page.reload()
            await desk.live()
            await desk.log("broken", "CRITICAL")
            await draws(flow, "--level-critical")
            await page.emulate_media(color_scheme="light")
            await draws(flow, "--level-critical")
            await page.locator("#theme").click()
            await expect(page.locator("html")).to_have_attribute("data-theme", "dark")
            await draws(flow, "--level-critical")

    run(work())


def test_seconds_in_which_nothing_was_heard_are_marked(nats_server: NatsServer, tmp_path: Path) -> None:
    """A relay that is away is not a quiet one."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            flow = desk.page.locator("#flow-chart")
            await draws(flow, "--level-disconnected", some=False)
            await desk.relay.stop()
            await draws(flow, "--level-disconnected")
            await desk.relay.start()
            await desk.live()
            await draws(flow, "--level-disconnected")

    run(work())


def test_a_history_has_a_chart_of_its_latencies(nats_server: NatsServer, tmp_path: Path) -> None:
    """It says least, most and last, a pointer finds each report, and it needs no network by then."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, chart = desk.page, desk.page.locator(".history-latency")
            await measured(desk, 12.0, ago=9)
            await expect(desk.tile("ctp.main")).to_be_visible()
            await page.wait_for_function("typeof uPlot === 'function'")
            await page.route("**/assets/**", gone)
            await desk.tile("ctp.main").locator(".tile-name").click()
            await expect(page.locator("#history .past")).to_have_count(1)
            await expect(chart).to_be_hidden()
            await measured(desk, None, 40.0, 13.0, ago=8)
            await expect(chart).to_have_attribute(
                "aria-label", re.compile("Latency in 3 reports from .*: 12 ms to 40 ms, the last 13 ms")
            )
            await draws(chart, "--accent")
            await draws(chart, "--red-wash")
            box = await chart.bounding_box()
            assert box
            await page.mouse.move(box["x"] + box["width"] - 16, box["y"] + 30)
            await expect(page.locator(".chart-tip:visible")).to_contain_text(re.compile("13 ms.*HEALTHY"))
            await page.locator("#history button", has_text="Close").click()
            await expect(page.locator(".chart-tip:visible")).to_have_count(0)

    run(work())


def test_the_page_stands_without_its_charts(nats_server: NatsServer, tmp_path: Path) -> None:
    """First comes what it has to say; a chart that cannot be loaded keeps nothing from it."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            await page.route("**/vendor/**", gone)
            await page.reload()
            await desk.live()
            await desk.log("still here", "ERROR")
            await expect(desk.line("still here")).to_be_visible()
            await says(page, ": 1 error; at most 1 in one second")
            await expect(page.locator("#flow-chart canvas")).to_have_count(0)

    run(work())
