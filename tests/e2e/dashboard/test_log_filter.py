"""The filter of the dashboard's log, in a real browser with a real relay and NATS server.

Every wait is for a state of the page.
"""

import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from tickertape.contracts.events import Status

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import Desk, open_desk, run
from tests.support.browser.log_desk import count, log, messages, publish, query

pytestmark = pytest.mark.browser


def sent_messages(desk: Desk) -> list[dict[str, Any]]:
    """Record the messages that the page sends from now on."""
    sent: list[dict[str, Any]] = []
    desk.page.on(
        "websocket", lambda socket: socket.on("framesent", lambda data: sent.append(orjson.loads(data)))
    )
    return sent


def test_the_filter_is_in_the_url(nats_server: NatsServer, tmp_path: Path) -> None:
    """The URL contains level, source, words and exclusions; reload and back restore them."""

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


def test_the_relay_sends_only_what_the_filter_selects(nats_server: NatsServer, tmp_path: Path) -> None:
    """Level and source are subscribed, states always; a wider filter loads the excluded lines."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env={}) as desk:
            page = desk.page
            sent = sent_messages(desk)
            received: list[str] = []

            def on_frame(data: str | bytes) -> None:
                received.append(str(data))

            page.on("websocket", lambda socket: socket.on("framereceived", on_frame))
            await desk.visit("/?level=WARN&source=desk.a")
            await desk.live()
            assert "level=WARN" in desk.sockets[-1].url
            assert "log.*.desk%3D2Ea" in desk.sockets[-1].url
            await publish(desk, log("one excluded", source="risk"), log("two excluded", source="desk.a"))
            await desk.status(Status.HEALTHY, Status.DEGRADED)
            await publish(desk, log("three shown", "ERROR", "desk.a"))
            await messages(desk, "three shown")
            await expect(desk.tile("ctp.main").locator(".status-word")).to_have_text("DEGRADED")
            assert not any("excluded" in frame for frame in received)
            await page.locator("#level").select_option("DEBUG")
            await messages(desk, "two excluded", "three shown")
            await page.locator("#source").fill("")
            status = "HEALTHY → DEGRADED  connection refused"
            await messages(desk, "one excluded", "two excluded", status, "three shown")
            await publish(desk, log("four", "DEBUG", "risk"))
            await expect(desk.line("four")).to_be_visible()
            assert [message["level"] for message in sent if message["type"] == "subscribe"][-1] == "DEBUG"
            assert await page.locator("#feed .row[data-kind=gap]").count() == 0

    run(work())
