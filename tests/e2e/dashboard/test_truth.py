"""Title, icon, rate chart, gaps and alarms of the dashboard, in a real browser.

Every wait is for a state of the page, none for a time.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any, Final

import pytest
from tickertape.contracts.events import GatewayStatusChange, Status

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Page, expect

from tests.support.browser.browser_desk import Desk, open_desk, run

pytestmark = pytest.mark.browser

ALARMS: Final = """
window.notifications = [];
window.tones = 0;
window.Notification = class {
  static permission = localStorage.getItem("test.permission") ?? "default";
  static async requestPermission() {
    Notification.permission = localStorage.getItem("test.answer") ?? "granted";
    localStorage.setItem("test.permission", Notification.permission);
    return Notification.permission;
  }
  constructor(title, { body }) { window.notifications.push([title, body]); window.latest = this; }
  close() {}
};
const make = AudioContext.prototype.createOscillator;
AudioContext.prototype.createOscillator = function () { window.tones += 1; return make.call(this); };
"""
"""Replace desktop notifications and the sound by fakes that record their use."""


async def reload_with_fakes(desk: Desk, answer: str = "granted") -> Page:
    """Reload the page with fake notifications and sound."""
    await desk.page.evaluate(f"localStorage.setItem('test.answer', '{answer}')")
    await desk.page.add_init_script(ALARMS)
    await desk.page.reload()
    await desk.live()
    return desk.page


async def publish_down(desk: Desk, gateway: str, **metadata: Any) -> None:
    """Publish that a gateway is down, and wait until the page shows it."""
    await desk.publish(
        GatewayStatusChange(
            gateway_id=gateway,
            gateway_type="ctp",
            previous_status=Status.HEALTHY,
            current_status=Status.UNHEALTHY,
            metadata={"error": "refused", "probe": "tcp", **metadata},
        )
    )
    await expect(desk.tile(gateway)).to_have_attribute("data-status", "UNHEALTHY")


async def expect_notifications(page: Page, *expected: list[str]) -> None:
    """Wait until exactly these notifications were shown."""
    async with asyncio.timeout(PATIENCE):
        while (found := await page.evaluate("window.notifications")) != list(expected):
            assert len(found) <= len(expected), found
            await asyncio.sleep(0.02)


def test_title_and_icon_show_outages_and_stale_data(nats_server: NatsServer, tmp_path: Path) -> None:
    """Title and icon show that gateways are down or, with precedence, that the data is stale."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            icon = desk.page.locator('link[rel="icon"]')
            await expect(desk.page).to_have_title("Tickertape")
            await expect(icon).to_have_attribute("href", "/assets/favicon.svg")
            await publish_down(desk, "a")
            await publish_down(desk, "b")
            await expect(desk.page).to_have_title("(2 down) Tickertape")
            await expect(icon).to_have_attribute("href", "/assets/favicon-down.svg")
            await desk.relay.stop()
            await expect(desk.page).to_have_title("(out of date) Tickertape")
            await expect(icon).to_have_attribute("href", "/assets/favicon-stale.svg")
            await desk.relay.start()
            await desk.live()
            await expect(desk.page).to_have_title("(2 down) Tickertape")
            for name in ("favicon", "favicon-down", "favicon-stale"):
                answer = await desk.page.request.get(f"{desk.relay.address}/assets/{name}.svg")
                assert answer.ok

    run(work())


def test_the_rate_chart_shows_levels_and_dropped_events(nats_server: NatsServer, tmp_path: Path) -> None:
    """The label of the chart lists severe levels first, and the page counts dropped events."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, client_rate=10) as desk:
            page = desk.page
            flow = page.locator("#flow-chart")
            await expect(page.locator("#lost-box")).to_be_hidden()
            await desk.log("fine")
            await desk.log("careful", "WARN")
            await expect(flow).to_have_attribute("aria-label", re.compile(": 1 warn, 1 info;"))
            await desk.log("broken", "ERROR")
            await expect(flow).to_have_attribute("aria-label", re.compile(": 1 error, 1 warn, 1 info;"))
            for number in range(200):
                await desk.log(f"line {number:03}")
            await expect(page.locator("#lost")).to_have_text(re.compile(r"[1-9]\d*"))
            await expect(page.locator("#lost-box")).to_have_attribute(
                "title", re.compile(r"Number of gaps since the page was opened: \d+")
            )

    run(work())


def test_alarms_are_off_until_enabled(nats_server: NatsServer, tmp_path: Path) -> None:
    """Notifications open the gateway's history; the choice survives a reload; silences are respected."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = await reload_with_fakes(desk)
            notify, sound = page.locator("#notify"), page.locator("#sound")
            await publish_down(desk, "first")
            await notify.click()
            await expect(notify).to_have_attribute("aria-pressed", "true")
            await sound.press("Enter")
            await expect(sound).to_have_attribute("aria-pressed", "true")
            assert await page.evaluate("window.tones") == 2
            await publish_down(desk, "quiet", silenced={"until": "2099-01-01T00:00:00Z"})
            await publish_down(desk, "second")
            await expect_notifications(page, ["second is down", "refused · tcp"])
            assert await page.evaluate("window.tones") == 4
            await page.evaluate("window.latest.onclick()")
            await expect(page.locator(".history-name")).to_have_text("second")
            await page.reload()
            await desk.live()
            await expect(notify).to_have_attribute("aria-pressed", "true")
            await expect(sound).to_have_attribute("aria-pressed", "true")
            await publish_down(desk, "third")
            await expect_notifications(page, ["third is down", "refused · tcp"])
            await notify.click()
            await sound.click()
            assert (
                await page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('ticker'))")
                == []
            )

    run(work())


def test_blocked_notifications_are_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    """The button stays off, and a line in the log explains why."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = await reload_with_fakes(desk, "denied")
            await page.locator("#notify").click()
            await expect(desk.line("This browser blocks notifications")).to_be_visible()
            await expect(page.locator("#notify")).to_have_attribute("aria-pressed", "false")

    run(work())
