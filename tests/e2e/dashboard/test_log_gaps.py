"""Gaps of the dashboard's log and links to its lines, in a real browser with a real relay and NATS server.

Every wait is for a state of the page.
"""

import os
import re
import time
from pathlib import Path
from typing import Final

import nats
import orjson
import pytest
from jwt import PyJWS
from tickertape.contracts.events import Status

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import open_desk, run
from tests.support.browser.log_desk import copied_link, count, log, publish, query

pytestmark = pytest.mark.browser

KEY: Final = "a key of this test, long enough for HS256"
TOKENS: Final = {
    "TICKERTAPE_AUTH": "jwt",
    "TICKERTAPE_JWT_ALGORITHM": "HS256",
    "TICKERTAPE_JWT_KEY": KEY,
}


def test_dropped_lines_are_loaded_in_place(nats_server: NatsServer, tmp_path: Path) -> None:
    """The lines of a gap are loaded in order and without duplicates, and the gap disappears."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, client_rate=10) as desk:
            page = desk.page
            gaps = page.locator('#feed .row[data-kind="gap"]')
            for number in range(300):
                await desk.log(f"line {number:03}")
            await expect(gaps.first).to_contain_text("dropped (rate)")
            # More gaps may follow during the flood; states are not rate limited.
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await expect(desk.tile("ctp.main")).to_be_visible()
            # Without lines between them, the gaps are joined.
            await page.locator("#filter").fill("matches nothing")
            await expect(page.locator("#feed .row")).to_have_count(1)
            await gaps.get_by_role("button", name="Load them").click()
            await expect(gaps).to_have_count(0)
            await page.keyboard.press("Escape")
            await count(desk, "301")
            await page.locator("#feed").focus()
            await page.keyboard.press("Home")
            shown: list[str] = []
            while len(shown) < 300:
                row = page.locator('#feed .row[aria-selected="true"] .row-message')
                shown.append(await row.inner_text())
                await page.keyboard.press("ArrowDown")
            assert shown == [f"line {number:03}" for number in range(300)]

    run(work())


def test_a_gap_is_loaded_with_the_token(nats_server: NatsServer, tmp_path: Path) -> None:
    """The token is in a header of the request and not in its URL."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, client_rate=10, env=TOKENS) as desk:
            claims = {"sub": "reader", "exp": time.time() + 3600, "tickertape": {"subjects": [">"]}}
            secret = PyJWS().encode(orjson.dumps(claims), KEY.encode(), "HS256")
            await desk.visit(f"/#token={secret}")
            await desk.live()
            for number in range(60):
                await desk.log(f"line {number:03}")
            gap = desk.page.locator('#feed .row[data-kind="gap"]')
            async with desk.page.expect_request("**/events?*until=*") as request_info:
                await gap.first.get_by_role("button").click()
            request = await request_info.value
            assert await request.header_value("authorization") == f"Bearer {secret}"
            assert secret not in request.url
            await expect(gap.get_by_text("Loading…")).to_have_count(0)
            await expect(gap.get_by_text("not loaded")).to_have_count(0)

    run(work())


def test_lost_lines_cannot_be_loaded(nats_server: NatsServer, tmp_path: Path) -> None:
    """A gap whose lines the stream no longer stores has no button to load them."""

    async def work() -> None:
        past = [log(f"line {number:03}") for number in range(30)]
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            await expect(desk.line("line 029")).to_be_visible()
            await desk.line("line 015").click()
            link = await copied_link(desk)
            await desk.relay.stop()
            await publish(desk, *(log(f"later {number}") for number in range(10)))
            client = await nats.connect(nats_server.url)
            await client.jetstream().purge_stream("EVENTS", seq=36)
            await client.close()
            await desk.relay.start()
            await page.keyboard.press("End")
            gap = page.locator('#feed .row[data-kind="gap"]')
            await expect(gap).to_contain_text("An unknown number of events are no longer stored")
            await expect(gap.get_by_role("button")).to_have_count(0)
            await expect(desk.line("later 9")).to_be_in_viewport()
            await page.goto(link)
            await desk.live()
            await expect(desk.line("The linked line is not available")).to_be_visible()

    run(work())


def test_a_link_opens_its_line(nats_server: NatsServer, tmp_path: Path) -> None:
    """The linked line is loaded, marked and open, and the lines after it can be loaded."""

    async def work() -> None:
        past = [log(f"line {number:04}") for number in range(1_600)]
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            # Without a request the relay sends only the latest 1 000 lines.
            gap = page.locator('#feed .row[data-kind="gap"]')
            await expect(desk.line("line 1599")).to_be_in_viewport()
            await page.locator("#feed").focus()
            await page.keyboard.press("Home")
            await page.keyboard.press("Enter")
            await expect(gap).to_have_count(0)
            await count(desk, "1,600")
            await page.keyboard.press("Home")
            await desk.line("line 0007").click()
            link = await copied_link(desk)
            assert re.fullmatch(rf"{desk.relay.address}/\?line=\w+-8", link)
            await page.goto(link)
            await desk.live()
            marked = page.locator("#feed .row[data-marked]")
            await expect(marked.locator(".row-message")).to_have_text("line 0007")
            await expect(marked).to_be_in_viewport()
            await expect(page.locator("#details-body .detail-message")).to_have_text("line 0007")
            await expect(desk.line("line 0008")).to_be_visible()
            await page.locator("#jump").click()
            await expect(desk.line("line 1599")).to_be_in_viewport()
            assert await query(desk) == ""

    run(work())


def test_a_recreated_stream_continues_below_a_gap(nats_server: NatsServer, tmp_path: Path) -> None:
    """The lines of the old stream stay, followed by a gap and the lines of the new stream."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await publish(desk, log("old 1"), log("old 2"))
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await expect(desk.tile("ctp.main")).to_be_visible()
            await desk.relay.stop()
            client = await nats.connect(nats_server.url)
            for stream in ("LATEST", "CHECKPOINTS", "EVENTS"):
                await client.jetstream().delete_stream(stream)
            await client.close()
            await desk.relay.start()
            await desk.live()
            await publish(desk, log("new 1"))
            await expect(desk.line("new 1")).to_be_visible()
            kinds = desk.page.locator("#feed .row")
            await expect(kinds).to_have_count(5)
            shown = [await row.get_attribute("data-kind") for row in await kinds.all()]
            assert shown == ["log", "log", "status", "gap", "log"]
            await expect(desk.line("stream was deleted or recreated")).to_be_visible()
            await expect(desk.page.locator(".tile")).to_have_count(0)

    run(work())


def test_lines_before_the_page_are_not_counted_as_dropped(nats_server: NatsServer, tmp_path: Path) -> None:
    """A page that opens with a long history shows a gap for it, but counts no dropped events."""
    past = [log(f"before {number}") for number in range(1_200)]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            await expect(desk.line("before 1199")).to_be_visible()
            await desk.page.locator("#feed").focus()
            await desk.page.keyboard.press("Home")
            gap = desk.line("200 events from before this page was opened are not shown")
            await expect(gap).to_be_visible()
            await expect(desk.page.locator("#lost-box")).to_be_hidden()
            await gap.locator("button").click()
            await expect(gap).to_have_count(0)
            await desk.page.keyboard.press("Home")
            await expect(desk.line("before 0")).to_be_visible()

    run(work())
