"""The dashboard with a faulty relay, proxy or clock.

Each case shows a state and its reason. The console contains only the browser's own errors about failed
requests, at most one per request.
"""

import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import orjson
import pytest
from tickertape.contracts.events import Status
from websockets import Subprotocol
from websockets.asyncio.server import ServerConnection, serve

from tests.support.servers.front_proxy import FrontProxy, front_proxy
from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import Desk, open_desk, run

pytestmark = pytest.mark.browser

V1: Final = Subprotocol("tickertape.v1")
HOUR_MS: Final = 3_600_000
CLOCK_OFFSET: Final = """
((offset) => {
  const Real = Date;
  window.Date = class extends Real {
    constructor(...given) { super(...(given.length ? given : [Real.now() + offset])); }
    static now() { return Real.now() + offset; }
  };
})(%d);
"""
"""Set the device's clock ahead by some milliseconds."""


@asynccontextmanager
async def proxied(server: NatsServer, folder: Path) -> AsyncIterator[tuple[Desk, FrontProxy]]:
    """Start a relay with a proxy in front; the page is not opened yet."""
    async with (
        open_desk(server, folder, env={}) as desk,
        front_proxy(int(desk.relay.address.rpartition(":")[2])) as proxy,
    ):
        yield desk, proxy


async def expect_banner(desk: Desk, *texts: str) -> None:
    """Wait until the banner is visible and contains all texts."""
    banner = desk.page.locator("#banner")
    await expect(banner).to_be_visible()
    for text in texts:
        await expect(banner).to_contain_text(text)


def check_console(desk: Desk, proxy: FrontProxy) -> None:
    """Check that the console contains at most one error per request, and only the browser's own."""
    requested = [path for path in proxy.seen if not path.startswith("/assets")]
    assert len(desk.errors) <= len(requested) < 40
    assert all(
        "Failed to load resource" in error or "WebSocket connection to" in error for error in desk.errors
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "origin is not allowed"), (429, "too many requests"), (503, "the relay is starting")],
)
def test_a_rejection_is_shown_and_retried(
    nats_server: NatsServer, tmp_path: Path, status: int, message: str
) -> None:
    """The reason of a rejected handshake is shown, and the page is live once the relay accepts it."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            body = orjson.dumps({"code": "refused", "message": message}).decode()
            proxy.answers = dict.fromkeys(("/ws", "/sse", "/events"), (status, body))
            await desk.page.goto(proxy.address)
            await expect_banner(desk, "Not connected to the relay", f"HTTP {status}: {message}")
            await expect(desk.page.locator("#link-word")).to_have_text("Reconnecting")
            proxy.answers = {}
            # The page may reconnect on its own first, and a hidden button cannot be clicked.
            await desk.page.locator("#retry").dispatch_event("click")
            await desk.live()
            await expect(desk.page.locator("#banner")).to_be_hidden()
            check_console(desk, proxy)

    run(work())


def test_a_proxy_that_requires_a_token_prompts_for_it(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page prompts for a token if a proxy responds with 401, as it does for the relay."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            proxy.answers = dict.fromkeys(("/ws", "/events"), (401, "not json"))
            await desk.page.goto(proxy.address)
            await expect_banner(desk, "This relay requires a token")
            await expect(desk.page.locator("#token")).to_be_focused()
            assert "/ws" not in proxy.seen

    run(work())


def test_a_proxy_that_blocks_websockets_and_streams_is_reported(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """If requests succeed but WebSockets and streams fail, the page points to the proxy."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            proxy.answers = dict.fromkeys(("/ws", "/sse"), (400, ""))
            await desk.page.goto(proxy.address)
            await expect_banner(desk, "WebSocket connections fail")
            check_console(desk, proxy)

    run(work())


def test_a_stopped_relay_is_retried(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page shows that the relay does not respond and when it retries, and is live once it is up."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await expect(desk.tile("ctp.main")).to_be_visible()
            await desk.relay.stop()
            await expect_banner(desk, "Not connected to the relay", "does not respond", "as of")
            await expect(desk.page.locator("#link-wait")).to_contain_text("in ")
            await expect(desk.tile("ctp.main")).to_be_visible()
            await desk.relay.start()
            await desk.live()
            assert len(desk.errors) < 40

    run(work())


def test_another_protocol_version_is_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page names the protocol version that it does not support, and stops."""

    async def newer_relay(socket: ServerConnection) -> None:
        welcome = {"type": "welcome", "protocol": "tickertape.v9", "heartbeat_ms": 15_000}
        await socket.send(orjson.dumps(welcome).decode())
        await socket.wait_closed()

    async def work() -> None:
        async with (
            proxied(nats_server, tmp_path) as (desk, proxy),
            serve(newer_relay, "127.0.0.1", 0, subprotocols=[V1]) as newer_server,
        ):
            proxy.routes = {"/ws": next(iter(newer_server.sockets)).getsockname()[1]}
            await desk.page.goto(proxy.address)
            await expect_banner(desk, "Connection closed", "speaks tickertape.v9")
            await expect(desk.page.locator("#link")).to_have_attribute("data-phase", "closed")
            proxy.routes = {}
            await desk.page.locator("#retry").click()
            await desk.live()
            assert desk.errors == []

    run(work())


def test_cut_connections_lose_no_lines(nats_server: NatsServer, tmp_path: Path) -> None:
    """Lines stay in order and are not repeated, however often connections are cut."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            await desk.page.goto(proxy.address)
            for number in range(4):
                await desk.live()
                if number:
                    proxy.cut()
                    await expect(desk.page.locator("#link")).not_to_have_attribute("data-phase", "live")
                await desk.log(f"line {number}")
                await expect(desk.line(f"line {number}")).to_be_visible()
            await expect(desk.page.locator("#feed .row .row-message")).to_have_text(
                [f"line {number}" for number in range(4)]
            )
            assert desk.errors == []

    run(work())


@pytest.mark.parametrize(
    ("offset_ms", "expected"), [(HOUR_MS, "1 h 00 m ahead"), (-HOUR_MS, "1 h 00 m behind")]
)
def test_a_wrong_clock_is_reported_and_corrected(
    nats_server: NatsServer, tmp_path: Path, offset_ms: int, expected: str
) -> None:
    """Ages are computed with the relay's clock, and the page shows the offset of the device's clock."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env={}) as desk:
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await desk.page.add_init_script(CLOCK_OFFSET % offset_ms)
            await desk.visit("/")
            await desk.live()
            await expect(desk.page.locator("#clock-off")).to_contain_text(expected)
            await desk.log("on time")
            await expect(desk.line("on time")).to_be_visible()
            await expect(desk.page.locator("#age")).to_have_text(re.compile(r"^\d+ s ago$"))
            await expect(desk.tile("ctp.main").locator(".tile-since")).not_to_contain_text("h")

    run(work())


def test_an_unknown_event_type_is_shown(nats_server: NatsServer, tmp_path: Path) -> None:
    """Events of an unknown type are shown unchanged, and later events still arrive."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            event = {"event_type": "order_filled", "timestamp": "2026-01-01T00:00:00Z", "price": 7.5}
            await desk.raw("system.orders", orjson.dumps({**event, "metadata": None}))
            await desk.log("after")
            await expect(desk.line("order_filled")).to_contain_text("7.5")
            await expect(desk.line("after")).to_be_visible()
            assert desk.errors == []

    run(work())
