"""The dashboard on a relay that asks for tokens, in a real browser.

Every wait is for a state of the page; where a test shows that something does not happen, it waits for what
the page does after it.
"""

import asyncio
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import orjson
import pytest
from jwt import PyJWS
from tickertape.contracts.events import Status

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import Desk, open_desk, run
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.browser

KEY: Final = "a key of this test, long enough for HS256"
ENV: Final = {
    "TICKERTAPE_AUTH": "jwt",
    "TICKERTAPE_JWT_ALGORITHM": "HS256",
    "TICKERTAPE_JWT_KEY": KEY,
}
ASKED: Final = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
"""What Chromium says of a page that asks whether it needs a token, and does."""

GATEWAY: Final = "gateway.status.ctp.main"
WARNED: Final = 59
"""Seconds that a token lasts which a relay warns of at once."""

BOTH: Final = """(token) => {
  const level = document.querySelector("#level");
  level.value = "ERROR";
  level.dispatchEvent(new Event("change", { bubbles: true }));
  document.querySelector("#token").value = token;
  document.querySelector("#token-form").requestSubmit();
}"""
"""Choose another level, and give the page its next token."""


def token(life: float = 3600, *subjects: str, key: str = KEY, name: str = "reader") -> str:
    """A token for this relay; ``life`` in seconds, everything without ``subjects``."""
    grant = {"subjects": list(subjects) or [">"]}
    claims = {"sub": name, "exp": time.time() + life, "tickertape": grant}
    return PyJWS().encode(orjson.dumps(claims), key.encode(), "HS256")


@asynccontextmanager
async def desk_with_tokens(server: NatsServer, folder: Path) -> AsyncIterator[Desk]:
    """A relay that asks for tokens, and a page that is not open yet; its console must say no error."""
    async with open_desk(server, folder, env=ENV) as desk:
        yield desk
        assert [text for text in desk.errors if text != ASKED] == []


async def give(desk: Desk, text: str) -> None:
    """Paste a token into the form, and send it."""
    await desk.page.locator("#token").fill(text)
    await desk.page.locator("#token").press("Enter")


async def give_short(desk: Desk, *subjects: str) -> int:
    """Renew the running session with a token that ends soon after; on a slow machine, later.

    Returns:
        How many sockets the page has opened until then.
    """
    answers: asyncio.Queue[str] = asyncio.Queue()

    def received(data: str | bytes) -> None:
        answers.put_nowait(orjson.loads(data)["type"])

    for life in (6, 12, 24, 48):
        desk.sockets[-1].on("framereceived", received)
        await give(desk, token(life, *subjects))
        while (answer := await asyncio.wait_for(answers.get(), PATIENCE)) not in ("subscribed", "error"):
            pass
        if answer == "subscribed":
            return len(desk.sockets)
        await headline(desk, "New token rejected")
        await desk.live()
    raise AssertionError("no token got to the relay before its end")


async def headline(desk: Desk, text: str) -> None:
    """Wait for what the banner says."""
    await expect(desk.page.locator("#banner-headline")).to_have_text(text)


async def stays_asked(desk: Desk) -> None:
    """The form is there, and the cursor in it."""
    await expect(desk.page.locator("#token")).to_be_focused()


def handshakes(desk: Desk) -> dict[str, float]:
    """Connections that the relay counted, by result."""
    with urllib.request.urlopen(desk.relay.metrics_address) as answer:
        lines = answer.read().decode().splitlines()
    name = "tickertape_handshakes_total{"
    found = (line.removeprefix(name) for line in lines if line.startswith(name))
    return {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in found}


async def address(desk: Desk) -> str:
    """What the address bar shows."""
    return str(await desk.page.evaluate("location.href"))


def test_without_a_token_the_page_asks_at_once(nats_server: NatsServer, tmp_path: Path) -> None:
    """The form is there, described and with the cursor in it; no socket was opened."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            await desk.visit("/")
            await expect(desk.page.locator("#token-form")).to_be_visible()
            await headline(desk, "This relay requires a token")
            await stays_asked(desk)
            described = await desk.page.locator("#token").get_attribute("aria-describedby")
            assert described == "token-error banner-detail"
            await expect(desk.page.get_by_label("Token", exact=True)).to_be_visible()
            assert desk.sockets == []
            assert sum(handshakes(desk).values()) == 0
            await give(desk, f"Bearer {token()}\n")
            await desk.live()
            await expect(desk.page.locator("#banner")).to_be_hidden()
            await expect(desk.page.locator("#token-ends")).to_contain_text("token until ")

    run(work())


def test_a_wrong_token_is_refused_with_the_reason(nats_server: NatsServer, tmp_path: Path) -> None:
    """The relay's reason is shown and told, the page does not try that token again, and a good one helps."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            await desk.visit("/")
            error = desk.page.get_by_role("alert")
            await give(desk, token(key="x" * 40))
            await headline(desk, "Token rejected")
            await expect(error).to_have_text("The token was not signed with a key that this relay knows.")
            await expect(desk.page.locator("#token")).to_have_attribute("aria-invalid", "true")
            await stays_asked(desk)
            await give(desk, "no token at all")
            await expect(error).to_contain_text("three parts")
            await give(desk, token(-5))
            await expect(error).to_contain_text("The token ended at")
            await desk.page.reload()
            await headline(desk, "This relay requires a token")
            await expect(error).to_have_text("")
            assert len(desk.sockets) == 2
            assert handshakes(desk) == {"accepted": 0, "rejected": 2}
            await give(desk, token())
            await desk.live()

    run(work())


def test_a_token_that_grants_nothing_says_so(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page asks for another one, once."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            claims = {"sub": "reader", "exp": time.time() + 60}
            nothing = PyJWS().encode(orjson.dumps(claims), KEY.encode(), "HS256")
            await desk.visit("/")
            await give(desk, nothing)
            await headline(desk, "The token grants no access")
            await expect(desk.page.get_by_role("alert")).to_contain_text("no claim 'tickertape'")
            await stays_asked(desk)
            assert len(desk.sockets) == 1

    run(work())


def test_a_token_in_the_fragment_is_used_and_gone(nats_server: NatsServer, tmp_path: Path) -> None:
    """It is in no address, request or referrer, nor kept beyond the tab; a reload keeps the session."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            secret = token()
            page = desk.page
            await desk.visit(f"/?x=1#row=7&token={secret}")
            await desk.live()
            assert await address(desk) == f"{desk.relay.address}/?x=1#row=7"
            await page.reload()
            await desk.live()
            await page.goto("about:blank")
            await page.go_back()
            await desk.live()
            assert await address(desk) == f"{desk.relay.address}/?x=1#row=7"
            for request in desk.requests:
                headers = await request.all_headers()
                told = [request.url, headers.get("referer", ""), headers.get("cookie", "")]
                assert not any(secret in text for text in told)
            assert not any(secret in socket.url for socket in desk.sockets)
            assert await page.evaluate("localStorage.length + document.cookie.length") == 0
            assert secret not in await page.content()
            assert secret not in desk.relay.log
            await page.locator("#token-forget").click()
            await headline(desk, "This relay requires a token")
            assert await page.evaluate("sessionStorage.length") == 0

    run(work())


def test_a_fragment_brings_a_token_to_an_open_page(nats_server: NatsServer, tmp_path: Path) -> None:
    """An address with a token that is opened in a tab with this page is as good as the form."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            await desk.visit("/")
            await headline(desk, "This relay requires a token")
            await desk.page.evaluate(f"location.hash = 'token={token()}'")
            await desk.live()
            assert await address(desk) == f"{desk.relay.address}/"

    run(work())


def test_a_token_in_the_query_is_not_used(nats_server: NatsServer, tmp_path: Path) -> None:
    """It leaves the address, the reader is told why, and the page asks for one."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            secret = token()
            await desk.visit(f"/?token={secret}&x=1")
            await headline(desk, "This relay requires a token")
            told = "The token in the URL was not used: URLs end up in logs."
            await expect(desk.page.locator("#banner-detail")).to_contain_text(told)
            await expect(desk.line(told)).to_be_visible()
            assert await address(desk) == f"{desk.relay.address}/?x=1"
            assert desk.sockets == []
            assert await desk.page.evaluate("sessionStorage.length") == 0
            for request in desk.requests[1:]:
                assert secret not in request.url
                assert secret not in (await request.all_headers()).get("referer", "")

    run(work())


def test_a_token_is_renewed_on_the_running_socket(nats_server: NatsServer, tmp_path: Path) -> None:
    """Before its end the page asks for the next one without standing in the way, and goes on with it."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(WARNED)}")
            await desk.live()
            await desk.status(Status.UNKNOWN, Status.HEALTHY)
            await desk.log("before")
            await expect(page.locator("#banner")).to_have_attribute("data-tone", "offer")
            await expect(page.locator("#banner-headline")).to_contain_text("The token expires at ")
            await expect(page.locator("#token-ends")).to_contain_text("token expires in ")
            await expect(page.locator("body")).to_have_attribute("data-stale", "false")
            await expect(page.locator("#token")).not_to_be_focused()
            sent: list[str | bytes] = []
            desk.sockets[0].on("framesent", lambda data: sent.append(data))
            renewed = token()
            await give(desk, renewed)
            await expect(page.locator("#banner")).to_be_hidden()
            await expect(page.locator("#token-ends")).to_contain_text("token until ")
            await desk.log("after")
            await expect(page.locator("#feed .row .row-message")).to_have_text(
                ["UNKNOWN → HEALTHY  connection refused", "before", "after"]
            )
            assert len(desk.sockets) == 1
            assert orjson.dumps({"type": "auth", "token": renewed}).decode() in sent
            await page.reload()
            await expect(page.locator("#token-ends")).to_contain_text("token until ")

    run(work())


def test_a_renewal_that_is_refused_costs_nothing(nats_server: NatsServer, tmp_path: Path) -> None:
    """The reason is shown, and the page goes on with the token that it has."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(WARNED)}")
            await desk.live()
            await desk.log("before")
            await expect(desk.line("before")).to_be_visible()
            await give(desk, token(key="x" * 40))
            await headline(desk, "New token rejected")
            await expect(page.get_by_role("alert")).to_contain_text("not signed with a key")
            await stays_asked(desk)
            await desk.live()
            await desk.log("after")
            await expect(page.locator("#feed .row .row-message")).to_have_text(["before", "after"])
            assert len(desk.sockets) == 2
            await give(desk, token())
            await expect(page.locator("#banner")).to_be_hidden()
            assert len(desk.sockets) == 2

    run(work())


def test_a_refused_renewal_costs_nothing_while_a_filter_is_on_its_way(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """The answer to a filter is not taken for that to the token which was sent right after it."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(WARNED)}")
            await desk.live()
            await expect(page.locator("#token")).to_be_visible()
            sent: list[str] = []
            desk.sockets[0].on("framesent", lambda data: sent.append(orjson.loads(data)["type"]))
            # In one go: no answer of the relay can come between the two.
            await page.evaluate(BOTH, token(key="x" * 40))
            await headline(desk, "New token rejected")
            await desk.live()
            assert sent == ["subscribe", "auth"]
            assert len(desk.sockets) == 2
            await give(desk, token())
            await expect(page.locator("#banner")).to_be_hidden()
            await expect(page.locator("#token-ends")).to_contain_text("token until ")
            assert len(desk.sockets) == 2

    run(work())


def test_a_narrower_token_takes_gateways_off_the_page(nats_server: NatsServer, tmp_path: Path) -> None:
    """Whether it renews a session or begins one, what it does not grant is gone."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "main")
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "side")
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "third")
            await desk.visit(f"/#token={token(WARNED)}")
            names = page.locator(".tile-name")
            await expect(names).to_have_text(["main", "side", "third"])
            opened = await give_short(desk, GATEWAY, "gateway.status.ctp.side")
            await expect(names).to_have_text(["main", "side"])
            assert len(desk.sockets) == opened
            await headline(desk, "The token is no longer valid")
            await give(desk, token(3600, GATEWAY))
            await desk.live()
            await expect(names).to_have_text(["main"])

    run(work())


def test_a_source_outside_of_the_grant_costs_the_filter_alone(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """A filter for what the token does not grant is told, and the page goes on with what it does grant."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(3600, 'log.*.desk')}")
            await desk.live()
            await desk.log("before")
            await expect(desk.line("before")).to_be_visible()
            await page.locator("#source").fill("elsewhere")
            await page.locator("#source").press("Enter")
            await expect(desk.line("The token does not grant what the filter selects")).to_be_visible()
            await desk.live()
            await expect(page.locator("#banner")).to_be_hidden()
            await desk.log("after")
            await page.locator("#source").fill("")
            await page.locator("#source").press("Enter")
            await expect(page.locator('#feed .row[data-kind="log"] .row-message')).to_have_text(
                ["before", "after"]
            )
            assert len(desk.sockets) == 2

    run(work())


def test_an_expired_token_is_asked_for_and_nothing_is_lost(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page goes on behind the last line that it has: each event once, in order."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(WARNED)}")
            await desk.live()
            for number in range(3):
                await desk.log(f"line {number}")
            await expect(desk.line("line 2")).to_be_visible()
            opened = await give_short(desk)
            await headline(desk, "The token is no longer valid")
            await expect(page.get_by_role("alert")).to_have_text("The token has expired.")
            await expect(page.locator("body")).to_have_attribute("data-stale", "true")
            await stays_asked(desk)
            for number in range(3, 6):
                await desk.log(f"line {number}")
            await give(desk, token())
            await desk.live()
            await desk.log("<b>line</b> 6")
            rows = page.locator("#feed .row .row-message")
            await expect(rows).to_have_text([*(f"line {number}" for number in range(6)), "<b>line</b> 6"])
            sequences = []
            for number in range(7):
                await page.locator("#feed .row").nth(number).click()
                sequences.append(await page.locator("#details-seq").inner_text())
            assert sequences == [f"#{number}" for number in range(1, 8)]
            assert len(desk.sockets) == opened + 1

    run(work())
