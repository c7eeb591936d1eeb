"""The filter of the dashboard's log, in a real browser, on a real relay and a real NATS.

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


def asked(desk: Desk) -> list[dict[str, Any]]:
    """What the page sent on its sockets, kept from here on."""
    sent: list[dict[str, Any]] = []
    desk.page.on(
        "websocket", lambda socket: socket.on("framesent", lambda data: sent.append(orjson.loads(data)))
    )
    return sent


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
