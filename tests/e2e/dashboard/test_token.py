"""The dashboard with a relay that requires tokens, in a real browser.

Every wait is for a state of the page; to show that something does not happen, a test waits for a later event.
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
UNAUTHORIZED_LOG: Final = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"
"""Chromium's error for the request with which the page finds out that it needs a token."""

GATEWAY: Final = "gateway.status.ctp.main"
SHORT_LIFE: Final = 59
"""Lifetime in seconds of a token that the relay immediately warns of."""

CHANGE_LEVEL_AND_SUBMIT: Final = """(token) => {
  const level = document.querySelector("#level");
  level.value = "ERROR";
  level.dispatchEvent(new Event("change", { bubbles: true }));
  document.querySelector("#token").value = token;
  document.querySelector("#token-form").requestSubmit();
}"""
"""Select another level, and submit the next token."""


def token(life: float = 3600, *subjects: str, key: str = KEY, name: str = "reader") -> str:
    """Sign a token; ``life`` in seconds, all subjects by default."""
    grant = {"subjects": list(subjects) or [">"]}
    claims = {"sub": name, "exp": time.time() + life, "tickertape": grant}
    return PyJWS().encode(orjson.dumps(claims), key.encode(), "HS256")


@asynccontextmanager
async def desk_with_tokens(server: NatsServer, folder: Path) -> AsyncIterator[Desk]:
    """Start a relay that requires tokens; the page is not opened yet, and must not log errors."""
    async with open_desk(server, folder, env=ENV) as desk:
        yield desk
        assert [text for text in desk.errors if text != UNAUTHORIZED_LOG] == []


async def submit_token(desk: Desk, text: str) -> None:
    """Enter a token into the form, and submit it."""
    await desk.page.locator("#token").fill(text)
    await desk.page.locator("#token").press("Enter")


async def submit_short_token(desk: Desk, *subjects: str) -> int:
    """Renew the running session with a token that expires soon after; on a slow machine, later.

    Returns:
        Number of sockets that the page has opened.
    """
    answers: asyncio.Queue[str] = asyncio.Queue()

    def received(data: str | bytes) -> None:
        answers.put_nowait(orjson.loads(data)["type"])

    for life in (6, 12, 24, 48):
        desk.sockets[-1].on("framereceived", received)
        await submit_token(desk, token(life, *subjects))
        while (answer := await asyncio.wait_for(answers.get(), PATIENCE)) not in ("subscribed", "error"):
            pass
        if answer == "subscribed":
            return len(desk.sockets)
        await expect_headline(desk, "New token rejected")
        await desk.live()
    raise AssertionError("every token expired before the relay received it")


async def expect_headline(desk: Desk, text: str) -> None:
    """Wait for the headline of the banner."""
    await expect(desk.page.locator("#banner-headline")).to_have_text(text)


async def expect_token_prompt(desk: Desk) -> None:
    """Wait until the token field has the focus."""
    await expect(desk.page.locator("#token")).to_be_focused()


def handshake_counts(desk: Desk) -> dict[str, float]:
    """Return the relay's count of connections by result."""
    with urllib.request.urlopen(desk.relay.metrics_address) as answer:
        lines = answer.read().decode().splitlines()
    name = "tickertape_handshakes_total{"
    found = (line.removeprefix(name) for line in lines if line.startswith(name))
    return {line.partition('"')[2].partition('"')[0]: float(line.rpartition(" ")[2]) for line in found}


async def address(desk: Desk) -> str:
    """Return the URL of the page."""
    return str(await desk.page.evaluate("location.href"))


def test_the_page_prompts_for_a_token(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page prompts for a token before it opens a socket; the form has a description and the focus."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            await desk.visit("/")
            await expect(desk.page.locator("#token-form")).to_be_visible()
            await expect_headline(desk, "This relay requires a token")
            await expect_token_prompt(desk)
            description_ids = await desk.page.locator("#token").get_attribute("aria-describedby")
            assert description_ids == "token-error banner-detail"
            await expect(desk.page.get_by_label("Token", exact=True)).to_be_visible()
            assert desk.sockets == []
            assert sum(handshake_counts(desk).values()) == 0
            await submit_token(desk, f"Bearer {token()}\n")
            await desk.live()
            await expect(desk.page.locator("#banner")).to_be_hidden()
            await expect(desk.page.locator("#token-ends")).to_contain_text("token until ")

    run(work())


def test_a_rejected_token_is_reported_with_the_reason(nats_server: NatsServer, tmp_path: Path) -> None:
    """The relay's reason is shown, the page does not retry the token, and a valid one is accepted."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            await desk.visit("/")
            error = desk.page.get_by_role("alert")
            await submit_token(desk, token(key="x" * 40))
            await expect_headline(desk, "Token rejected")
            await expect(error).to_have_text("The token is not signed with a key of this relay.")
            await expect(desk.page.locator("#token")).to_have_attribute("aria-invalid", "true")
            await expect_token_prompt(desk)
            await submit_token(desk, "not a token")
            await expect(error).to_contain_text("three parts")
            await submit_token(desk, token(-5))
            await expect(error).to_contain_text("The token expired at")
            await desk.page.reload()
            await expect_headline(desk, "This relay requires a token")
            await expect(error).to_have_text("")
            assert len(desk.sockets) == 2
            assert handshake_counts(desk) == {"accepted": 0, "rejected": 2}
            await submit_token(desk, token())
            await desk.live()

    run(work())


def test_a_token_without_a_grant_is_reported(nats_server: NatsServer, tmp_path: Path) -> None:
    """If a token has no grant, the page prompts for another one and does not retry."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            claims = {"sub": "reader", "exp": time.time() + 60}
            without_grant = PyJWS().encode(orjson.dumps(claims), KEY.encode(), "HS256")
            await desk.visit("/")
            await submit_token(desk, without_grant)
            await expect_headline(desk, "The token grants no access")
            await expect(desk.page.get_by_role("alert")).to_contain_text("no claim 'tickertape'")
            await expect_token_prompt(desk)
            assert len(desk.sockets) == 1

    run(work())


def test_a_token_in_the_fragment_is_used_and_removed(nats_server: NatsServer, tmp_path: Path) -> None:
    """The token is in no URL, referrer or cookie, nor stored beyond the tab; a reload keeps the session."""

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
                exposed = [request.url, headers.get("referer", ""), headers.get("cookie", "")]
                assert not any(secret in text for text in exposed)
            assert not any(secret in socket.url for socket in desk.sockets)
            assert await page.evaluate("localStorage.length + document.cookie.length") == 0
            assert secret not in await page.content()
            assert secret not in desk.relay.log
            await page.locator("#token-forget").click()
            await expect_headline(desk, "This relay requires a token")
            assert await page.evaluate("sessionStorage.length") == 0

    run(work())


def test_a_token_in_a_fragment_reaches_an_open_page(nats_server: NatsServer, tmp_path: Path) -> None:
    """Opening a URL with a token in the page's tab has the same effect as the form."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            await desk.visit("/")
            await expect_headline(desk, "This relay requires a token")
            await desk.page.evaluate(f"location.hash = 'token={token()}'")
            await desk.live()
            assert await address(desk) == f"{desk.relay.address}/"

    run(work())


def test_a_token_in_the_query_is_not_used(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page removes the token from the URL, explains why it is not used, and prompts for a token."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            secret = token()
            await desk.visit(f"/?token={secret}&x=1")
            await expect_headline(desk, "This relay requires a token")
            exposed = "The token in the URL was not used: URLs end up in logs."
            await expect(desk.page.locator("#banner-detail")).to_contain_text(exposed)
            await expect(desk.line(exposed)).to_be_visible()
            assert await address(desk) == f"{desk.relay.address}/?x=1"
            assert desk.sockets == []
            assert await desk.page.evaluate("sessionStorage.length") == 0
            for request in desk.requests[1:]:
                assert secret not in request.url
                assert secret not in (await request.all_headers()).get("referer", "")

    run(work())


def test_a_token_is_renewed_within_the_session(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page prompts for the next token before the current one expires, and continues with it."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(SHORT_LIFE)}")
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
            await submit_token(desk, renewed)
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


def test_a_rejected_renewal_keeps_the_token(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page shows why the renewal was rejected, and continues with its current token."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(SHORT_LIFE)}")
            await desk.live()
            await desk.log("before")
            await expect(desk.line("before")).to_be_visible()
            await submit_token(desk, token(key="x" * 40))
            await expect_headline(desk, "New token rejected")
            await expect(page.get_by_role("alert")).to_contain_text("not signed with a key")
            await expect_token_prompt(desk)
            await desk.live()
            await desk.log("after")
            await expect(page.locator("#feed .row .row-message")).to_have_text(["before", "after"])
            assert len(desk.sockets) == 2
            await submit_token(desk, token())
            await expect(page.locator("#banner")).to_be_hidden()
            assert len(desk.sockets) == 2

    run(work())


def test_the_reply_to_a_filter_is_not_taken_for_a_renewal(nats_server: NatsServer, tmp_path: Path) -> None:
    """The reply to a filter is not mistaken for the reply to the token that was sent right after it."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(SHORT_LIFE)}")
            await desk.live()
            await expect(page.locator("#token")).to_be_visible()
            sent: list[str] = []
            desk.sockets[0].on("framesent", lambda data: sent.append(orjson.loads(data)["type"]))
            # In one step, so that no answer of the relay can arrive in between.
            await page.evaluate(CHANGE_LEVEL_AND_SUBMIT, token(key="x" * 40))
            await expect_headline(desk, "New token rejected")
            await desk.live()
            assert sent == ["subscribe", "auth"]
            assert len(desk.sockets) == 2
            await submit_token(desk, token())
            await expect(page.locator("#banner")).to_be_hidden()
            await expect(page.locator("#token-ends")).to_contain_text("token until ")
            assert len(desk.sockets) == 2

    run(work())


def test_a_narrower_token_removes_gateways(nats_server: NatsServer, tmp_path: Path) -> None:
    """Gateways outside of the new grant are removed, both after a renewal and in a new session."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "main")
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "side")
            await desk.status(Status.UNKNOWN, Status.HEALTHY, "third")
            await desk.visit(f"/#token={token(SHORT_LIFE)}")
            names = page.locator(".tile-name")
            await expect(names).to_have_text(["main", "side", "third"])
            opened = await submit_short_token(desk, GATEWAY, "gateway.status.ctp.side")
            await expect(names).to_have_text(["main", "side"])
            assert len(desk.sockets) == opened
            await expect_headline(desk, "The token is no longer valid")
            await submit_token(desk, token(3600, GATEWAY))
            await desk.live()
            await expect(names).to_have_text(["main"])

    run(work())


def test_a_source_outside_of_the_grant_is_not_subscribed(nats_server: NatsServer, tmp_path: Path) -> None:
    """The page reports that the token does not grant the filter, and continues without it."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(3600, 'log.*.desk')}")
            await desk.live()
            await desk.log("before")
            await expect(desk.line("before")).to_be_visible()
            await page.locator("#source").fill("elsewhere")
            await page.locator("#source").press("Enter")
            await expect(desk.line("The token does not grant the subjects of this filter")).to_be_visible()
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


def test_an_expired_token_is_replaced_without_loss(nats_server: NatsServer, tmp_path: Path) -> None:
    """With a new token the page resumes after its last line, with each event once and in order."""

    async def work() -> None:
        async with desk_with_tokens(nats_server, tmp_path) as desk:
            page = desk.page
            await desk.visit(f"/#token={token(SHORT_LIFE)}")
            await desk.live()
            for number in range(3):
                await desk.log(f"line {number}")
            await expect(desk.line("line 2")).to_be_visible()
            opened = await submit_short_token(desk)
            await expect_headline(desk, "The token is no longer valid")
            await expect(page.get_by_role("alert")).to_have_text("The token has expired.")
            await expect(page.locator("body")).to_have_attribute("data-stale", "true")
            await expect_token_prompt(desk)
            for number in range(3, 6):
                await desk.log(f"line {number}")
            await submit_token(desk, token())
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
