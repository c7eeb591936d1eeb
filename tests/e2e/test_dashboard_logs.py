"""The dashboard's log in a real browser, on a real relay and a real NATS.

Every wait is for a state of the page. What is measured has wide bounds: the machine is shared.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import nats
import orjson
import pytest
from jwt import PyJWS
from nats.aio.client import Client

from contracts.events import Status, SystemLog
from tests.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.browser_desk import Desk, open_desk

pytestmark = pytest.mark.browser

KEPT: Final = 50_000
"""Lines that the page keeps."""

KEY: Final = "a key of this test, long enough for HS256"
TOKENS: Final = {
    "TICKERTAPE_AUTH": "jwt",
    "TICKERTAPE_JWT_ALGORITHM": "HS256",
    "TICKERTAPE_JWT_KEY": KEY,
}

FRAMES: Final = """() => {
  const gaps = [];
  let last = performance.now();
  let going = true;
  const each = (now) => {
    gaps.push(now - last);
    last = now;
    if (going) requestAnimationFrame(each);
  };
  requestAnimationFrame(each);
  window.frames_end = () => {
    going = false;
    return gaps.slice(1);
  };
}"""
"""Notes the time between frames until ``frames_end`` is called."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's work."""
    asyncio.run(work)


def log(message: str, level: str = "INFO", source: str = "desk", **metadata: Any) -> SystemLog:
    """A line of a log."""
    fields = {"level": level, "message": message, "source": source, "metadata": metadata}
    return SystemLog.model_validate(fields)


class Pump:
    """Publishes lines without waiting for each to be stored."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.sent = 0

    async def lines(self, number: int, per_second: float) -> None:
        """Publish so many lines, evenly."""
        clock = asyncio.get_running_loop().time
        start = clock()
        for batch in range(0, number, 20):
            for _ in range(min(20, number - batch)):
                event = log(f"order {self.sent:06} accepted by the exchange, filled at 3,912.5")
                await self._client.publish(event.subject, event.encode())
                self.sent += 1
            await asyncio.sleep(start + (batch + 20) / per_second - clock())
        await self._client.flush()


@asynccontextmanager
async def pump(server: NatsServer) -> AsyncIterator[Pump]:
    """A pump on a connection of its own."""
    client = await nats.connect(server.url)
    try:
        yield Pump(client)
    finally:
        await client.close()


async def messages(desk: Desk, *wanted: str) -> None:
    """Wait until these are the messages of all rows."""
    await expect(desk.page.locator("#feed .row .row-message")).to_have_text(list(wanted))


async def publish(desk: Desk, *events: SystemLog) -> None:
    """Publish events in order."""
    for event in events:
        await desk.publish(event)


def test_a_thousand_lines_a_second_are_drawn_in_time(nats_server: NatsServer, tmp_path: Path) -> None:
    """With 50 000 lines kept and 1 000 more a second, frames come in time and the heap within 20 MB."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk, pump(nats_server) as source:
            page = desk.page
            devtools = await page.context.new_cdp_session(page)

            async def heap() -> float:
                await devtools.send("HeapProfiler.collectGarbage")
                return float((await devtools.send("Runtime.getHeapUsage"))["usedSize"]) / 2**20

            empty = await heap()
            while await page.locator("#log-counts").inner_text() != f"{KEPT:,}":
                await source.lines(4_000, 4_000)
            full = await heap()
            await page.evaluate(FRAMES)
            await source.lines(8_000, 1_000)
            gaps = sorted(await page.evaluate("window.frames_end()"))
            await expect(desk.line(f"order {source.sent - 1:06}")).to_be_in_viewport()
            end = await heap()
            late = sum(1 for gap in gaps if gap > 34) / len(gaps)
            figures = (
                f"heap: {empty:.1f} MB empty, {full:.1f} MB full, {end:.1f} MB after 8 000 more; "
                f"{len(gaps)} frames, "
                f"median {gaps[len(gaps) // 2]:.1f} ms, worst {gaps[-1]:.0f} ms, {late:.1%} late"
            )
            print(figures)
            assert await page.locator("#feed .row").count() < 120
            assert gaps[len(gaps) // 2] < 20, figures
            assert late < 0.1, figures
            assert max(full, end) - empty <= 20, figures

    run(work())


def test_the_keys_walk_the_log(nats_server: NatsServer, tmp_path: Path) -> None:
    """Arrows, pages, Home and End move; Enter opens a line and closes it; End follows the newest again."""

    async def work() -> None:
        past = [log(f"line {number:03}") for number in range(300)]
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            chosen = page.locator('#feed .row[aria-selected="true"] .row-message')
            await expect(desk.line("line 299")).to_be_in_viewport()
            await page.locator("#feed").focus()
            await page.keyboard.press("ArrowUp")
            await expect(chosen).to_have_text("line 299")
            await page.keyboard.press("ArrowUp")
            await expect(chosen).to_have_text("line 298")
            await page.keyboard.press("PageUp")
            await expect(chosen).not_to_have_text("line 298")
            await page.keyboard.press("PageDown")
            await expect(chosen).to_have_text("line 298")
            await page.keyboard.press("Home")
            await expect(chosen).to_have_text("line 000")
            await expect(chosen).to_be_in_viewport()
            await page.keyboard.press("ArrowDown")
            await page.keyboard.press("Enter")
            await expect(page.locator("#details-body .detail-message")).to_have_text("line 001")
            opened = page.locator("#feed .row[aria-expanded='true']")
            await expect(opened.locator(".row-message")).to_have_text("line 001")
            await page.keyboard.press("Enter")
            await expect(page.locator("#details-body")).to_have_count(0)
            await desk.log("the newest")
            await expect(page.locator("#jump")).to_have_text("1 newer ↓")
            await page.keyboard.press("End")
            await expect(desk.line("the newest")).to_be_in_viewport()
            await expect(page.locator("#jump")).to_be_hidden()
            await expect(chosen).to_have_count(0)
            await desk.log("newer still")
            await expect(desk.line("newer still")).to_be_in_viewport()

    run(work())


def test_an_open_line_shows_its_traceback(nats_server: NatsServer, tmp_path: Path) -> None:
    """Tracebacks keep their breaks, metadata is listed, markup is text; the line can be copied."""
    trace = (
        "Traceback (most recent call last):\n  File 'desk.py', line 7\nOSError: <img src=x onerror=alert(1)>"
    )

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            page = desk.page
            await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
            await publish(desk, log("send failed", "ERROR", exception=trace, order={"id": 7, "legs": [1, 2]}))
            await desk.line("send failed").click()
            body = page.locator("#details-body")
            await expect(body.locator(".trace pre")).to_have_text(trace)
            await expect(body.locator("dd").last).to_contain_text('"legs": [')
            assert await page.locator("#feed img").count() == 0
            await body.get_by_role("button", name="Copy line").click()
            await expect(body.get_by_role("button", name="Copied")).to_be_visible()
            copied = await page.evaluate("navigator.clipboard.readText()")
            assert " ERROR desk send failed\nTraceback" in copied
            await page.keyboard.press("Escape")
            await expect(body).to_have_count(0)
            assert desk.errors == []

    run(work())


def asked(desk: Desk) -> list[dict[str, Any]]:
    """What the page sent on its sockets, kept from here on."""
    sent: list[dict[str, Any]] = []
    desk.page.on(
        "websocket", lambda socket: socket.on("framesent", lambda data: sent.append(orjson.loads(data)))
    )
    return sent


async def query(desk: Desk) -> str:
    """The query in the address bar."""
    return str(await desk.page.evaluate("location.search"))


async def count(desk: Desk, text: str) -> None:
    """Wait for what is said of how many lines are shown."""
    await expect(desk.page.locator("#log-counts")).to_have_text(text)


def test_the_filter_is_in_the_address(nats_server: NatsServer, tmp_path: Path) -> None:
    """Level, source and text, also what must not occur; a reload and the way back bring each again."""

    async def work() -> None:
        past = [
            log("order sent", "WARN", "ctp.main"),
            log("order sent, heartbeat", "WARN", "ctp.main"),
            log("order kept", "INFO", "ctp.main"),
            log("order sent", "ERROR", "risk"),
        ]
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            await count(desk, "4")
            await page.locator("#level").select_option("WARN")
            await count(desk, "3 of 4")
            await page.locator("#source").fill("ctp.main")
            await messages(desk, "order sent", "order sent, heartbeat")
            await page.locator("#filter").fill('order -heartbeat "')
            await messages(desk, "order sent")
            await page.locator("#filter").fill("order -heartbeat")
            await count(desk, "1 of 4")
            here = "?level=WARN&source=ctp.main&text=order&not=heartbeat"
            assert await query(desk) == here
            await page.go_back()
            await messages(desk, "order sent", "order sent, heartbeat")
            await expect(page.locator("#filter")).to_have_value("")
            await page.go_back()
            await count(desk, "3 of 4")
            await page.go_forward()
            await page.go_forward()
            await messages(desk, "order sent")
            await page.reload()
            await desk.live()
            await messages(desk, "order sent")
            await expect(page.locator("#filter")).to_have_value("order -heartbeat")
            await page.locator("#filter").press("Escape")
            await messages(desk, *(line.message for line in past))
            assert await query(desk) == ""
            assert desk.errors == []

    run(work())


def test_the_relay_sends_only_what_the_filter_wants(nats_server: NatsServer, tmp_path: Path) -> None:
    """Level and source are asked of the relay, state stays; what was held back comes when it is wanted."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env={}) as desk:
            page = desk.page
            sent = asked(desk)
            received: list[str] = []

            def hear(data: str | bytes) -> None:
                received.append(str(data))

            page.on("websocket", lambda socket: socket.on("framereceived", hear))
            await desk.visit("/?level=WARN&source=desk.a")
            await desk.live()
            assert "level=WARN" in desk.sockets[-1].url
            assert "log.*.desk%3D2Ea" in desk.sockets[-1].url
            await publish(desk, log("one held back", source="risk"), log("two held back", source="desk.a"))
            await desk.status(Status.HEALTHY, Status.DEGRADED)
            await publish(desk, log("three shown", "ERROR", "desk.a"))
            await messages(desk, "three shown")
            await expect(desk.tile("ctp.main").locator(".status-word")).to_have_text("DEGRADED")
            assert not any("held back" in frame for frame in received)
            await page.locator("#level").select_option("DEBUG")
            await messages(desk, "two held back", "three shown")
            await page.locator("#source").fill("")
            status = "HEALTHY → DEGRADED  connection refused"
            await messages(desk, "one held back", "two held back", status, "three shown")
            await publish(desk, log("four", "DEBUG", "risk"))
            await expect(desk.line("four")).to_be_visible()
            assert [message["level"] for message in sent if message["type"] == "subscribe"][-1] == "DEBUG"
            assert await page.locator("#feed .row[data-kind=gap]").count() == 0

    run(work())


def test_what_was_passed_over_is_loaded_in_its_place(nats_server: NatsServer, tmp_path: Path) -> None:
    """The lines of a gap come through the history, each once and in order, and the gap is gone."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, client_rate=10) as desk:
            page = desk.page
            gaps = page.locator('#feed .row[data-kind="gap"]')
            for number in range(300):
                await desk.log(f"line {number:03}")
            await expect(gaps.first).to_contain_text("passed over (rate)")
            # Gaps may come one after the other while the flood goes on; state is held back by nothing.
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await expect(desk.tile("ctp.main")).to_be_visible()
            # With nothing shown between them they stand as one.
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


def test_a_gap_on_a_relay_with_tokens_is_loaded_with_the_token(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """The token is in the header of the request, and in no address."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, client_rate=10, env=TOKENS) as desk:
            claims = {"sub": "reader", "exp": time.time() + 3600, "tickertape": {"subjects": [">"]}}
            secret = PyJWS().encode(orjson.dumps(claims), KEY.encode(), "HS256")
            await desk.visit(f"/#token={secret}")
            await desk.live()
            for number in range(60):
                await desk.log(f"line {number:03}")
            gap = desk.page.locator('#feed .row[data-kind="gap"]')
            async with desk.page.expect_request("**/events?*until=*") as asking:
                await gap.first.get_by_role("button").click()
            request = await asking.value
            assert await request.header_value("authorization") == f"Bearer {secret}"
            assert secret not in request.url
            await expect(gap.get_by_text("Loading…")).to_have_count(0)
            await expect(gap.get_by_text("not loaded")).to_have_count(0)

    run(work())


def test_what_is_gone_is_said_to_be_gone(nats_server: NatsServer, tmp_path: Path) -> None:
    """Lines that the stream has let go of are no promise: their row has no button."""

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
            await expect(gap).to_contain_text("An unknown number of events are gone")
            await expect(gap.get_by_role("button")).to_have_count(0)
            await expect(desk.line("later 9")).to_be_in_viewport()
            await page.goto(link)
            await desk.live()
            await expect(desk.line("The line of this address is not there")).to_be_visible()

    run(work())


async def copied_link(desk: Desk) -> str:
    """What the open line's button for a link puts on the clipboard."""
    await desk.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    await desk.page.locator("#details-body").get_by_role("button", name="Copy link").click()
    await expect(desk.page.locator("#details-body").get_by_role("button", name="Copied")).to_be_visible()
    return str(await desk.page.evaluate("navigator.clipboard.readText()"))


def test_a_link_opens_the_place_of_its_line(nats_server: NatsServer, tmp_path: Path) -> None:
    """Its line is loaded, marked and open, what lies between it and now is one press away."""

    async def work() -> None:
        past = [log(f"line {number:04}") for number in range(1_600)]
        async with open_desk(nats_server, tmp_path, *past) as desk:
            page = desk.page
            # Of what is further back than 1 000 lines, the relay sends none by itself.
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
