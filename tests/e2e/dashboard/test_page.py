"""The dashboard in a real browser with a real relay and NATS server.

Every wait is for a state of the page, none for a time.
"""

import os
import re
import signal
from pathlib import Path

import pytest
from tickertape.contracts.events import GatewayStatusChange, Status, SystemHealth

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import open_desk, run

pytestmark = pytest.mark.browser


def test_a_status_change_and_a_log_line_appear(nats_server: NatsServer, tmp_path: Path) -> None:
    """A gateway that goes down and a log line appear on the page, and in its title."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.status(Status.HEALTHY, Status.UNHEALTHY)
            await desk.log("order 8f31 rejected", "ERROR")
            tile = desk.tile("ctp.main")
            await expect(tile.locator(".status-word")).to_have_text("UNHEALTHY")
            await expect(tile.locator(".tile-kind")).to_have_text("ctp · futures")
            await expect(tile.locator(".tile-change")).to_have_text("HEALTHY → UNHEALTHY")
            await expect(tile.locator(".tile-fault")).to_have_text("connection refused · tcp")
            await expect(tile.locator(".tile-latency")).to_have_text("12 ms")
            line = desk.line("order 8f31 rejected")
            await expect(line.locator(".row-label")).to_have_text("ERROR")
            await expect(line.locator(".row-source")).to_have_text("desk")
            await expect(desk.line("HEALTHY → UNHEALTHY")).to_have_attribute("data-kind", "status")
            await expect(desk.page).to_have_title("(1 down) Tickertape")
            await desk.status(Status.UNHEALTHY, Status.REMOVED)
            await expect(tile).to_have_count(0)
            await expect(desk.page).to_have_title("Tickertape")

    run(work())


def test_the_page_opens_with_earlier_states(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page shows states from before it was opened, worst first, also after a reload."""

    def change(gateway: str, previous: Status, current: Status) -> GatewayStatusChange:
        return GatewayStatusChange(
            gateway_id=gateway, gateway_type="ctp", previous_status=previous, current_status=current
        )

    past = [
        change("calm", Status.UNKNOWN, Status.HEALTHY),
        change("torn", Status.UNKNOWN, Status.HEALTHY),
        change("torn", Status.HEALTHY, Status.DEGRADED),
        change("torn", Status.DEGRADED, Status.UNHEALTHY),
        SystemHealth(component="monitor", status=Status.HEALTHY),
    ]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            for _ in range(2):
                await expect(desk.page.locator(".tile-name")).to_have_text(["torn", "calm"])
                await expect(desk.tile("torn").locator(".cell")).to_have_count(3)
                await expect(desk.page.locator(".component-name")).to_have_text("monitor")
                await desk.page.reload()
                await desk.live()

    run(work())


def test_markup_in_a_log_line_is_escaped(nats_server: NatsServer, tmp_path: Path) -> None:
    """HTML in a log line is shown as text in the row and in the details, and is never executed."""
    markup = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.log(markup)
            line = desk.line("onerror")
            await expect(line.locator(".row-message")).to_have_text(markup)
            await line.click()
            await expect(desk.page.locator("#details-body")).to_contain_text("<script>document.title")
            assert await desk.page.locator("img, main script").count() == 0
            await expect(desk.page).to_have_title("Tickertape")

    run(work())


def test_the_log_follows_until_the_user_scrolls_up(nats_server: NatsServer, tmp_path: Path) -> None:
    """The newest line stays in view; after scrolling up the view is fixed until the user jumps back."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            for number in range(200):
                await desk.log(f"line {number:03}")
            await expect(desk.line("line 199")).to_be_in_viewport()
            assert await desk.page.locator("#feed .row").count() < 200
            await desk.page.locator("#feed").hover()
            await desk.page.mouse.wheel(0, -100_000)
            await expect(desk.line("line 000")).to_be_in_viewport()
            await desk.log("the newest")
            await expect(desk.page.locator("#jump")).to_have_text("1 newer ↓")
            await expect(desk.line("line 000")).to_be_in_viewport()
            await desk.page.locator("#jump").click()
            await expect(desk.line("the newest")).to_be_in_viewport()
            await desk.page.set_viewport_size({"width": 390, "height": 700})
            await expect(desk.line("the newest")).to_be_in_viewport()

    run(work())


def test_dropped_events_are_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    """A flood above the rate limit leaves a row with the number of dropped events and the reason."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, client_rate=10) as desk:
            for number in range(200):
                await desk.log(f"line {number:03}")
            expected = re.compile(r"\d+ events? dropped \(rate\): \d+ log\.info")
            await expect(desk.page.locator('#feed .row[data-kind="gap"]').first).to_contain_text(expected)

    run(work())


def test_pause_and_filters_hide_lines(nats_server: NatsServer, tmp_path: Path) -> None:
    """Pausing queues new lines and counts them; a filter hides lines, and a wider one shows them again."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.log("alpha quiet", "DEBUG")
            await desk.log("beta loud", "ERROR")
            await expect(desk.line("beta loud")).to_be_visible()

            await page.keyboard.press("p")
            await desk.log("gamma later", "ERROR")
            await expect(page.locator("#fresh")).to_have_text("1 new")
            await expect(desk.line("gamma later")).to_have_count(0)
            await page.locator("#pause").click()
            await expect(desk.line("gamma later")).to_be_visible()

            await page.locator("#level").select_option("ERROR")
            await expect(desk.line("alpha quiet")).to_have_count(0)
            await expect(desk.line("beta loud")).to_be_visible()
            await page.locator("#level").select_option("DEBUG")
            await expect(desk.line("alpha quiet")).to_be_visible()

            await page.locator("#feed").focus()
            await page.keyboard.press("/")
            await expect(page.locator("#filter")).to_be_focused()
            await page.keyboard.type("gamma")
            await expect(page.locator("#feed .row .row-message")).to_have_text(["gamma later"])
            await page.keyboard.press("Escape")
            await expect(page.locator("#feed .row .row-message")).to_have_text(
                ["alpha quiet", "beta loud", "gamma later"]
            )

    run(work())


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGKILL])
def test_the_page_resumes_after_a_relay_restart(
    nats_server: NatsServer, tmp_path: Path, stop_signal: signal.Signals
) -> None:
    """The page shows that the relay is down, reconnects, and shows each line once and in order."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await desk.log("before")
            await expect(desk.line("before")).to_be_visible()
            await desk.relay.stop(stop_signal)
            await expect(desk.page.locator("#banner-headline")).to_have_text("Not connected to the relay")
            await desk.log("between")
            await desk.status(Status.HEALTHY, Status.DEGRADED)
            await desk.relay.start()
            await desk.live()
            await expect(desk.page.locator("#banner")).to_be_hidden()
            await desk.log("after")
            await expect(desk.line("after")).to_be_visible()
            seen = [
                "UNKNOWN → HEALTHY  connection refused",
                "before",
                "between",
                "HEALTHY → DEGRADED  connection refused",
                "after",
            ]
            await expect(desk.page.locator("#feed .row .row-message")).to_have_text(seen)
            await expect(desk.tile("ctp.main").locator(".status-word")).to_have_text("DEGRADED")
            await expect(desk.tile("ctp.main").locator(".cell")).to_have_count(2)

    run(work())


def test_a_nats_outage_is_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    """During a NATS outage a banner is shown and the connection stays open; lines arrive afterwards."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            banner = desk.page.locator("#banner-headline")
            nats_server.stop()
            await expect(banner).to_have_text("NATS unreachable")
            await desk.live()
            nats_server.start()
            await expect(banner).to_be_hidden()
            await desk.log("recovered")
            await expect(desk.line("recovered")).to_be_visible()

    run(work())


def test_the_theme_is_stored(nats_server: NatsServer, tmp_path: Path) -> None:
    """The theme follows the system until the user chooses one, and the choice survives a reload."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            root = desk.page.locator("html")
            background = "getComputedStyle(document.body).backgroundColor"
            await desk.page.emulate_media(color_scheme="light")
            light = await desk.page.evaluate(background)
            await desk.page.locator("#theme").click()
            await expect(root).to_have_attribute("data-theme", "dark")
            dark = await desk.page.evaluate(background)
            await desk.page.reload()
            await expect(root).to_have_attribute("data-theme", "dark")
            assert await desk.page.evaluate(background) == dark != light

    run(work())
