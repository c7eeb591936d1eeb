"""The gateways of the dashboard in a real browser: groups, tags, states, history, and a thousand gateways.

Every wait is for a state of the page, none for a time.
"""

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tickertape.contracts.events import GatewayRecovery, GatewayStatusChange, Status

from tests.e2e.dashboard.test_token import ENV, token
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import Route, expect

from tests.support.browser.browser_desk import Desk, open_desk, run
from tests.support.browser.dashboard_scene import change

pytestmark = pytest.mark.browser

MANY = 1_000


async def publish_all(desk: Desk, events: list[GatewayStatusChange]) -> None:
    """Publish events concurrently."""
    await asyncio.gather(*map(desk.publish, events))


def test_the_grouping_is_stored(nats_server: NatsServer, tmp_path: Path) -> None:
    """Gateways are grouped by group or type, worst group first; the choice survives a reload."""
    past = [
        change("calm", Status.UNKNOWN, Status.HEALTHY, "ctp", group="equities"),
        change("mild", Status.UNKNOWN, Status.DEGRADED, "fix", group="futures"),
        change("torn", Status.UNKNOWN, Status.UNHEALTHY, "fix", group="futures"),
        change("lone", Status.UNKNOWN, Status.HEALTHY, "ctp"),
    ]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            everything = page.locator("#tiles > li")
            await expect(page.locator(".tile-name")).to_have_text(["torn", "mild", "calm", "lone"])
            await expect(page.locator(".group-head")).to_have_count(0)
            await page.locator("#group-by").select_option("group")
            for _ in range(2):
                await expect(page.locator(".group-name")).to_have_text(["futures", "equities", "no group"])
                await expect(everything.nth(1).locator(".tile-name")).to_have_text("torn")
                await expect(page.locator(".group-head").first).to_contain_text(re.compile("1.*1"))
                await page.reload()
                await desk.live()
            await page.locator("#group-by").select_option("type")
            await expect(page.locator(".group-name")).to_have_text(["fix", "ctp"])
            await desk.publish(change("calm", Status.HEALTHY, Status.UNHEALTHY, "ctp", group="equities"))
            await expect(page.locator(".group-name")).to_have_text(["ctp", "fix"])
            await page.locator("#group-by").select_option("none")
            await expect(page.locator(".group-head")).to_have_count(0)
            assert await page.evaluate("localStorage.length") == 0

    run(work())


def test_silenced_flapping_and_failing_probes_are_marked(nats_server: NatsServer, tmp_path: Path) -> None:
    """A silence shows its end, author and reason, and sorts its gateway last; an expired one is ignored."""
    bad: dict[str, Any] = {"probes": {"tcp": "UNHEALTHY", "http": "HEALTHY"}}
    silence = {"until": "2099-01-01T00:00:00Z", "by": "anna", "reason": "<i>works</i>"}
    over = {"until": "2020-01-01T00:00:00Z", "by": "anna", "reason": "works"}
    past = [
        change("a", Status.HEALTHY, Status.UNHEALTHY, silenced=silence, **bad),
        change("b", Status.HEALTHY, Status.UNHEALTHY, flapping=True, **bad),
        change("c", Status.HEALTHY, Status.UNHEALTHY, silenced=over, **bad),
    ]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            await expect(desk.page.locator(".tile-name")).to_have_text(["b", "a", "c"])
            tags = desk.page.locator(".tag:visible")
            await expect(tags).to_have_text(["flapping", "silenced"])
            await expect(desk.tile("a").locator(".tag:visible")).to_have_attribute(
                "title", re.compile("Silenced until .* by anna: <i>works</i>")
            )
            await expect(desk.tile("b").locator(".tile-fault")).to_have_text("tcp")
            await expect(desk.tile("b").locator(".tile-ago")).to_be_visible()
            await desk.tile("b").locator("button").focus()
            await expect(desk.tile("b").locator(".tile-ago")).to_be_hidden()
            await expect(desk.tile("b").locator(".tile-at")).to_have_text(re.compile(r"since \d\d:\d\d:\d\d"))

    run(work())


def test_states_are_read_with_the_keyboard(nats_server: NatsServer, tmp_path: Path) -> None:
    """The bar is the tab stop after its tile; arrow keys show each state with its time and reason."""
    past = [
        change("main", Status.UNKNOWN, Status.HEALTHY, latency_ms=5),
        change("main", Status.HEALTHY, Status.UNHEALTHY, latency_ms=20, error="refused", probe="tcp"),
        change("main", Status.UNHEALTHY, Status.HEALTHY, latency_ms=7),
    ]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page, tile = desk.page, desk.tile("main")
            await expect(tile.locator(".cell")).to_have_count(3)
            title = tile.locator(".latency-line title")
            await expect(title).to_have_text("Latency in 3 reports: 5.0 ms to 20 ms")
            await tile.locator("button").focus()
            await page.keyboard.press("Tab")
            bar, tip = tile.get_by_role("slider"), page.get_by_role("tooltip")
            await expect(bar).to_be_focused()
            await expect(tip).to_contain_text(re.compile("HEALTHY.*since 20"))
            await page.keyboard.press("ArrowLeft")
            await expect(tip).to_contain_text(re.compile("UNHEALTHY.*, for .*refused · tcp"))
            await expect(bar).to_have_attribute("aria-valuenow", "2")
            await expect(bar).to_have_attribute("aria-valuetext", re.compile("UNHEALTHY, .*refused · tcp"))
            await desk.status(Status.HEALTHY, Status.DEGRADED, "other")
            await expect(desk.tile("other")).to_be_visible()
            await expect(bar).to_be_focused()
            await expect(tip).to_contain_text("UNHEALTHY")
            await page.keyboard.press("Shift+Tab")
            await expect(tip).to_be_hidden()
            await tile.locator(".cell").first.hover()
            await expect(tip).to_contain_text("HEALTHY")

    run(work())


def test_a_tile_opens_its_history_and_filters_the_log(nats_server: NatsServer, tmp_path: Path) -> None:
    """The history shows earlier and new events once each; Esc closes it and clears the filter."""
    states = [Status.HEALTHY, Status.UNHEALTHY]
    past = [change("ctp.main", states[n % 2 - 1], states[n % 2], step=n) for n in range(130)]

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page, tile = desk.page, desk.tile("ctp.main")
            await desk.log("order of ctp.main refused")
            await desk.log("order of another")
            await expect(desk.line("another")).to_be_visible()
            await tile.locator("button").press("Enter")
            panel, rows = page.locator("#history"), page.locator(".past")
            await expect(panel).to_be_visible()
            await expect(tile.locator("button")).to_have_attribute("aria-expanded", "true")
            await expect(rows).to_have_count(100)
            await expect(panel.locator(".cell")).to_have_count(50)
            await expect(desk.line("another")).to_have_count(0)
            await expect(desk.line("order of ctp.main refused")).to_be_visible()
            await panel.get_by_role("button", name="Older").click()
            await expect(rows).to_have_count(130)
            await expect(page.locator(".history-state")).to_have_text("No older events.")
            await desk.publish(
                GatewayRecovery(gateway_id="ctp.main", gateway_type="ctp", phase="attempt", attempt=2)
            )
            await desk.status(Status.UNHEALTHY, Status.HEALTHY)
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "ctp.other")
            await expect(desk.tile("ctp.other")).to_be_visible()
            await expect(rows).to_have_count(132)
            await expect(rows.first).to_contain_text("from UNHEALTHY · 12 ms")
            await expect(rows.nth(1)).to_contain_text("recovery attempt 2")
            await expect(rows.nth(2).locator(".past-lasted")).to_have_text(re.compile(r"\d s"))
            await page.locator(".history-rows").press("Escape")
            await expect(panel).to_be_hidden()
            await expect(tile.locator("button")).to_be_focused()
            await expect(desk.line("another")).to_be_visible()

    run(work())


def test_on_a_phone_the_history_covers_the_page(nats_server: NatsServer, tmp_path: Path) -> None:
    """On a phone the history covers the window and takes the focus, and Esc returns to the tile."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page, tile = desk.page, desk.tile("ctp.main")
            await page.set_viewport_size({"width": 390, "height": 844})
            await desk.status(Status.HEALTHY, Status.UNHEALTHY)
            await tile.locator("button").click()
            panel = page.locator("#history")
            await expect(panel.get_by_role("button", name="Close")).to_be_focused()
            await expect(page.locator(".past")).to_have_count(1)
            assert await panel.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
            assert await page.evaluate("document.documentElement.scrollWidth") == 390
            await page.keyboard.press("Escape")
            await expect(panel).to_be_hidden()
            await expect(tile.locator("button")).to_be_focused()

    run(work())


def test_history_requests_carry_the_token(nats_server: NatsServer, tmp_path: Path) -> None:
    """The token is in a header and not in the URL; a failed request is reported and can be repeated."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            secret = token()
            await desk.status(Status.HEALTHY, Status.UNHEALTHY)
            await desk.visit(f"/#token={secret}")
            await desk.live()
            await desk.tile("ctp.main").locator("button").click()
            await expect(desk.page.locator(".past")).to_have_count(1)
            history_requests = [request for request in desk.requests if "/events?subjects" in request.url]
            assert len(history_requests) == 1
            assert secret not in history_requests[0].url
            assert (await history_requests[0].all_headers())["authorization"] == f"Bearer {secret}"

            async def reject(route: Route) -> None:
                await route.fulfill(
                    status=503, json={"code": "unavailable", "message": "NATS <b>is</b> unreachable"}
                )

            await desk.page.locator("#history").get_by_role("button", name="Close").click()
            await desk.page.route("**/events?*", reject)
            await desk.tile("ctp.main").locator("button").click()
            state = desk.page.locator(".history-state")
            await expect(state).to_have_text("Failed to load the history. NATS <b>is</b> unreachable.")
            await desk.page.unroute("**/events?*")
            await desk.page.get_by_role("button", name="Older").click()
            await expect(desk.page.locator(".past")).to_have_count(1)

    run(work())


def test_a_thousand_changes_share_layouts(nats_server: NatsServer, tmp_path: Path) -> None:
    """A burst of a thousand changes costs few layouts per frame, and only tiles in view are built."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            await publish_all(
                desk, [change(f"gw {n:04}", Status.UNKNOWN, Status.HEALTHY) for n in range(MANY)]
            )
            await expect(page.locator('.tile[data-status="HEALTHY"]')).to_have_count(MANY)
            assert await page.locator(".tile-bar").count() < 200
            session = await page.context.new_cdp_session(page)
            await session.send("Performance.enable")

            async def layouts() -> float:
                metrics = (await session.send("Performance.getMetrics"))["metrics"]
                return float(next(metric["value"] for metric in metrics if metric["name"] == "LayoutCount"))

            before = await layouts()
            await page.evaluate(
                "() => { window.frames_ = 0;"
                " const next = () => { window.frames_ += 1; requestAnimationFrame(next); }; next(); }"
            )
            await publish_all(
                desk,
                [
                    change(f"gw {n:04}", Status.HEALTHY, Status.UNHEALTHY if n % 2 else Status.DEGRADED)
                    for n in range(MANY)
                ],
            )
            await expect(page.locator('.tile[data-status="UNHEALTHY"]')).to_have_count(MANY // 2)
            await expect(page.locator('.tile[data-status="DEGRADED"]')).to_have_count(MANY // 2)
            frames = await page.evaluate("window.frames_")
            # The list, the log and new tiles near the view may each cause one layout per frame.
            assert await layouts() - before <= 3 * frames
            await expect(page.locator(".tile").first.locator(".tile-name")).to_have_text("gw 0001")
            last = page.locator(".tile").last
            async with asyncio.timeout(PATIENCE):
                # A tile that moves between the two steps loses the focus.
                while not await last.locator(".tile-name").evaluate("(it) => it === document.activeElement"):
                    await page.locator(".tile-name").first.focus()
                    await page.keyboard.press("End")
            await expect(last.locator(".cell")).to_have_count(2)

    run(work())
