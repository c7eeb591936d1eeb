"""Size of the dashboard, and its use without a network.

Every wait is for a state of the page. Times are printed, never asserted: the machine is shared.
"""

import os
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Request, expect

from tests.support.browser.browser_desk import open_desk, run
from tests.support.browser.dashboard_scene import LINES, MAIN, TRACE, open_scene

pytestmark = pytest.mark.browser

MAX_BYTES: Final = 100_000
"""Maximum compressed size of all files that the page loads at its start."""

PAINT: Final = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"

ASSETS: Final = """() => performance.getEntriesByType("resource").map(
  ({ name, encodedBodySize: sent, decodedBodySize: unpacked }) => [new URL(name).pathname, sent, unpacked])"""
"""Return the loaded resources: path, size as sent, size unpacked."""


def test_the_page_is_small(nats_server: NatsServer, tmp_path: Path) -> None:
    """With an empty cache each file is loaded once and compressed, in total less than 100 KB."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env={}) as desk:
            page = desk.page
            await desk.visit("/")
            await desk.live()
            live_ms = await page.evaluate("performance.now()")
            await page.wait_for_function(f"{PAINT} !== null")
            paint_ms = await page.evaluate(PAINT)
            # Requests to the relay and the icon may be repeated: a page that waits long for its first session
            # is marked as out of date meanwhile, and probes the relay. Those that it cancels have no size.
            requests = [
                request
                for request in desk.requests
                if request.resource_type != "fetch" and "/favicon" not in request.url
            ]
            sizes = [await request.sizes() for request in requests]
            bodies = sum(size["responseBodySize"] for size in sizes)
            heads = sum(size["responseHeadersSize"] for size in sizes)
            loaded = await page.evaluate(ASSETS)
            figures = (
                f"{len(desk.requests)} requests, {bodies:,} bytes of files and {heads:,} of headers; "
                f"first paint after {paint_ms:.0f} ms, live after {live_ms:.0f} ms"
            )
            print(figures)
            files = [request.url for request in requests]
            assert len(files) > 5
            assert sorted(files) == sorted(set(files)), "a file was requested twice"
            for path, sent, unpacked in loaded:
                assert sent < unpacked or unpacked < 500, f"{path} is not compressed"
            assert 20_000 < bodies < MAX_BYTES, figures

    run(work())


def test_the_page_works_offline(nats_server: NatsServer, tmp_path: Path) -> None:
    """Filter, details, history and theme work offline without loading files; then the page catches up."""

    async def work() -> None:
        async with open_scene(nats_server, tmp_path) as desk:
            page = desk.page
            assets: list[Request] = []

            def record(request: Request) -> None:
                # The browser loads the icon itself; the title shows the same state.
                if "/assets/" in request.url and "/favicon" not in request.url:
                    assets.append(request)

            page.on("request", record)
            await desk.relay.stop()
            await page.context.set_offline(True)
            await expect(page.locator("#banner")).to_be_visible()
            await expect(page).to_have_title("(out of date) Tickertape")

            await page.locator("#filter").fill("orders")
            await expect(page.locator('#feed .row[data-kind="log"] .row-message')).to_have_text(
                list(LINES.values())
            )
            await page.locator("#filter").fill("")
            await page.locator("#feed").focus()
            await page.keyboard.press("Home")
            await expect(page.locator('#feed .row[aria-rowindex="1"]')).to_be_in_viewport()
            await page.keyboard.press("End")
            await desk.line(LINES["ERROR"]).last.click()
            await expect(page.locator("#details-body .trace pre")).to_have_text(TRACE)
            await page.keyboard.press("Escape")

            await desk.tile(MAIN).locator("button").click()
            history = page.locator("#history")
            await expect(page.locator(".history-state")).to_have_text(
                "Failed to load the history. The relay does not respond."
            )
            await expect(history.locator(".history-facts")).to_contain_text("refused")
            await expect(history.locator(".cell")).to_have_count(12)
            await expect(history.get_by_role("button", name="Older")).to_be_visible()
            await history.get_by_role("button", name="Close").click()
            await expect(history).to_be_hidden()

            before = await page.evaluate("getComputedStyle(document.body).backgroundColor")
            await page.locator("#theme").click()
            assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != before
            assert [request.url for request in assets] == []

            await desk.log("while offline", "ERROR")
            await desk.relay.start()
            await page.context.set_offline(False)
            await desk.live()
            await expect(page.locator("#banner")).to_be_hidden()
            await desk.log("back online", "ERROR")
            await expect(desk.line("back online")).to_be_visible()
            shown = page.locator("#feed .row .row-message")
            assert (await shown.all_inner_texts())[-3:] == [
                LINES["CRITICAL"],
                "while offline",
                "back online",
            ]
            assert [request.url for request in assets] == []

    run(work())
