"""What the dashboard shows when the relay, a proxy before it, or a clock is not as it should be.

Each case has a state that is seen and says why; the console stays quiet but for what the browser says of
a request that failed, and that is paced as the returns are.
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
OFF_BY: Final = """
((off) => {
  const Real = Date;
  window.Date = class extends Real {
    constructor(...given) { super(...(given.length ? given : [Real.now() + off])); }
    static now() { return Real.now() + off; }
  };
})(%d);
"""
"""A device whose clock is so many milliseconds ahead."""


@asynccontextmanager
async def proxied(server: NatsServer, folder: Path) -> AsyncIterator[tuple[Desk, FrontProxy]]:
    """A page that is not open yet, and a proxy between it and its relay."""
    async with (
        open_desk(server, folder, env={}) as desk,
        front_proxy(int(desk.relay.address.rpartition(":")[2])) as proxy,
    ):
        yield desk, proxy


async def says(desk: Desk, *texts: str) -> None:
    """Wait until the banner is there, and says all of this."""
    banner = desk.page.locator("#banner")
    await expect(banner).to_be_visible()
    for text in texts:
        await expect(banner).to_contain_text(text)


def quiet(desk: Desk, proxy: FrontProxy) -> None:
    """The browser said one error at most for each request, and there were few."""
    asked = [path for path in proxy.seen if not path.startswith("/assets")]
    assert len(desk.errors) <= len(asked) < 40
    assert all("Failed to load resource" in said or "WebSocket connection to" in said for said in desk.errors)


@pytest.mark.parametrize(
    ("status", "message"),
    [(403, "pages of this site are not let in"), (429, "too many requests"), (503, "the relay is starting")],
)
def test_a_refusal_is_told_and_got_over(
    nats_server: NatsServer, tmp_path: Path, status: int, message: str
) -> None:
    """An answer that is no session is shown with its reason, and the page is live when it is over."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            body = orjson.dumps({"code": "refused", "message": message}).decode()
            proxy.answers = {"/ws": (status, body), "/events": (status, body)}
            await desk.page.goto(proxy.address)
            await says(desk, "Not connected to the relay", f"HTTP {status}: {message}")
            await expect(desk.page.locator("#link-word")).to_have_text("Reconnecting")
            proxy.answers = {}
            # The page may come back by itself first, and a button that is gone cannot be clicked.
            await desk.page.locator("#retry").dispatch_event("click")
            await desk.live()
            await expect(desk.page.locator("#banner")).to_be_hidden()
            quiet(desk, proxy)

    run(work())


def test_a_proxy_that_asks_for_a_token_is_heard(nats_server: NatsServer, tmp_path: Path) -> None:
    """A 401 before the relay is the question for a token, as one of the relay is."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            proxy.answers = dict.fromkeys(("/ws", "/events"), (401, "not json"))
            await desk.page.goto(proxy.address)
            await says(desk, "This relay requires a token")
            await expect(desk.page.locator("#token")).to_be_focused()
            assert "/ws" not in proxy.seen

    run(work())


def test_a_proxy_without_websockets_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    """Where requests pass and sockets do not, the page says where to look."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            proxy.answers = {"/ws": (400, "")}
            await desk.page.goto(proxy.address)
            await says(desk, "WebSocket connections fail")
            quiet(desk, proxy)

    run(work())


def test_a_relay_that_is_down_is_waited_for(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page says that nobody answers, when it tries next, and is live when the relay is there."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await expect(desk.tile("ctp.main")).to_be_visible()
            await desk.relay.stop()
            await says(desk, "Not connected to the relay", "does not respond", "as of")
            await expect(desk.page.locator("#link-wait")).to_contain_text("in ")
            await expect(desk.tile("ctp.main")).to_be_visible()
            await desk.relay.start()
            await desk.live()
            assert len(desk.errors) < 40

    run(work())


def test_a_relay_of_another_version_is_told(nats_server: NatsServer, tmp_path: Path) -> None:
    """What speaks another protocol is not guessed at: the page says which, and stops."""

    async def other(socket: ServerConnection) -> None:
        welcome = {"type": "welcome", "protocol": "tickertape.v9", "heartbeat_ms": 15_000}
        await socket.send(orjson.dumps(welcome).decode())
        await socket.wait_closed()

    async def work() -> None:
        async with (
            proxied(nats_server, tmp_path) as (desk, proxy),
            serve(other, "127.0.0.1", 0, subprotocols=[V1]) as later,
        ):
            proxy.routes = {"/ws": next(iter(later.sockets)).getsockname()[1]}
            await desk.page.goto(proxy.address)
            await says(desk, "Connection closed", "speaks tickertape.v9")
            await expect(desk.page.locator("#link")).to_have_attribute("data-phase", "closed")
            proxy.routes = {}
            await desk.page.locator("#retry").click()
            await desk.live()
            assert desk.errors == []

    run(work())


def test_a_proxy_that_cuts_idle_sockets_costs_no_line(nats_server: NatsServer, tmp_path: Path) -> None:
    """Whatever is cut, the lines stand in order, each once."""

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


@pytest.mark.parametrize(("off", "told"), [(HOUR_MS, "1 h 00 m ahead"), (-HOUR_MS, "1 h 00 m behind")])
def test_a_clock_that_is_an_hour_off_is_told_and_made_up_for(
    nats_server: NatsServer, tmp_path: Path, off: int, told: str
) -> None:
    """Ages are by the relay's clock, and the reader hears of the difference."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path, env={}) as desk:
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await desk.page.add_init_script(OFF_BY % off)
            await desk.visit("/")
            await desk.live()
            await expect(desk.page.locator("#clock-off")).to_contain_text(told)
            await desk.log("just so")
            await expect(desk.line("just so")).to_be_visible()
            await expect(desk.page.locator("#age")).to_have_text(re.compile(r"^\d+ s ago$"))
            await expect(desk.tile("ctp.main").locator(".tile-since")).not_to_contain_text("h")

    run(work())


def test_an_event_of_an_unknown_type_is_a_line(nats_server: NatsServer, tmp_path: Path) -> None:
    """What others publish shows as it is, and stops nothing."""

    async def work() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            event = {"event_type": "order_filled", "timestamp": "2026-01-01T00:00:00Z", "price": 7.5}
            await desk.raw("system.orders", orjson.dumps({**event, "metadata": None}))
            await desk.log("after")
            await expect(desk.line("order_filled")).to_contain_text("7.5")
            await expect(desk.line("after")).to_be_visible()
            assert desk.errors == []

    run(work())
