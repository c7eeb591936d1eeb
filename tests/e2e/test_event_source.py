"""The browser's own ``EventSource`` on ``/sse``: it resumes by itself, and logs in with a cookie."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Final

import pytest

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from tests.e2e.dashboard.test_token import ENV, token
from tests.support.browser.browser_desk import Desk, open_desk, run
from tests.support.documents.markdown import blocks
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.browser

FOLLOW: Final = """(address) => {
  window.texts = [];
  window.messages = [];
  window.opened = 0;
  window.eventSource?.close();
  window.eventSource = new EventSource(address);
  window.eventSource.onopen = () => { window.opened += 1; };
  window.eventSource.onmessage = ({ data, lastEventId }) => {
    const message = JSON.parse(data);
    window.messages.push({ ...message, lastEventId });
    for (const { event } of message.type === "events" ? message.events : []) window.texts.push(event.message);
  };
}"""
"""Follow the feed with ``onmessage`` alone, and without any code for a lost connection."""

LOG_IN: Final = """async ([method, token]) => {
  const headers = token === "" ? {} : { Authorization: `Bearer ${token}` };
  return (await fetch("/session", { method, headers })).status;
}"""


async def until(desk: Desk, condition: str) -> None:
    """Wait until an expression is true on the page."""
    # Not wait_for_function, which evaluates a string in the page: its policy forbids that.
    async with asyncio.timeout(PATIENCE):
        while not await desk.page.evaluate(condition):
            await asyncio.sleep(0.02)


async def has(desk: Desk, kind: str) -> None:
    """Wait for a message of a type."""
    await until(desk, f"window.messages.some((message) => message.type === '{kind}')")


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_event_source_resumes_without_loss(
    tmp_path: Path, nats_server: NatsServer, how: signal.Signals
) -> None:
    """A page that uses ``onmessage`` alone gets every event once, although its relay is replaced twice."""

    async def scenario() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.page.evaluate(FOLLOW, "/sse?subjects=log.>")
            await has(desk, "snapshot")
            for number in range(3):
                for part in "ab":
                    await desk.log(f"{number}{part}")
                await until(desk, f"window.texts.includes('{number}b')")
                await desk.relay.stop(how)
                await desk.log(f"{number} meanwhile") if number < 2 else None
                await desk.relay.start()
            await desk.log("last")
            await until(desk, "window.texts.includes('last')")
            texts = await desk.page.evaluate("window.texts")
            assert texts == ["0a", "0b", "0 meanwhile", "1a", "1b", "1 meanwhile", "2a", "2b", "last"]
            assert await desk.page.evaluate("window.opened") == 4
            resumed = await desk.page.evaluate(
                "window.messages.filter(({ type }) => type === 'subscribed').map(({ resumed }) => resumed)"
            )
            assert resumed == [False, True, True, True]

    run(scenario())


def test_event_source_logs_in_with_a_cookie(tmp_path: Path, nats_server: NatsServer) -> None:
    """The cookie is sent to ``/sse`` alone and hidden from scripts; when its token expires, the page is told,
    and after another login the browser continues by itself.
    """

    async def scenario() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            await desk.visit("/")
            page = desk.page
            await page.evaluate(FOLLOW, "/sse")
            await until(desk, "window.eventSource.readyState === EventSource.CLOSED")
            assert await page.evaluate(LOG_IN, ["POST", "x.y.z"]) == 401
            assert await page.evaluate(LOG_IN, ["POST", token(10.0)]) == 204
            assert await page.evaluate("document.cookie") == ""
            assert await page.evaluate("fetch('/events').then(({ status }) => status)") == 401
            assert await page.evaluate("fetch('/stream').then(({ status }) => status)") == 401
            await page.evaluate(FOLLOW, "/sse?subjects=log.>")
            await has(desk, "snapshot")
            await desk.log("before")
            await until(desk, "window.texts.includes('before')")
            await until(desk, "window.messages.some(({ code }) => code === 4401)")
            await desk.log("meanwhile")
            assert await page.evaluate(LOG_IN, ["POST", token()]) == 204
            await desk.log("after")
            await until(desk, "window.texts.includes('after')")
            assert await page.evaluate("window.texts") == ["before", "meanwhile", "after"]
            assert await page.evaluate(LOG_IN, ["DELETE", ""]) == 204
            await page.evaluate(FOLLOW, "/sse")
            await until(desk, "window.eventSource.readyState === EventSource.CLOSED")

    run(scenario())


def test_event_source_stops_after_a_final_rejection(tmp_path: Path, nats_server: NatsServer) -> None:
    """Status 204 ends the reconnects, as when the token of the next login grants nothing of the filter."""

    async def scenario() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            await desk.visit("/")
            assert await desk.page.evaluate(LOG_IN, ["POST", token()]) == 204
            await desk.page.evaluate(FOLLOW, "/sse?subjects=log.>")
            await has(desk, "snapshot")
            assert await desk.page.evaluate(LOG_IN, ["POST", token(3600, "gateway.>")]) == 204
            await desk.relay.stop()
            await desk.relay.start()
            await until(desk, "window.eventSource.readyState === EventSource.CLOSED")

    run(scenario())


def test_the_examples_of_the_page_work(tmp_path: Path, nats_server: NatsServer) -> None:
    """The documented login opens a stream, and the documented handler logs an event."""
    handle, log_in = (block.text for block in blocks("docs/http-streams.md") if block.language == "js")

    async def scenario() -> None:
        async with open_desk(nats_server, tmp_path, env=ENV) as desk:
            await desk.visit("/")
            logged: list[str] = []
            desk.page.on("console", lambda output: logged.append(output.text))
            await desk.page.evaluate(f"async (token) => {{ {log_in} window.eventSource = source; }}", token())
            await until(desk, "window.eventSource.readyState === EventSource.OPEN")
            await desk.page.evaluate(f"() => {{ {handle} window.eventSource = source; }}")
            await until(desk, "window.eventSource.readyState === EventSource.OPEN")
            await desk.log("an example", level="ERROR")
            async with asyncio.timeout(PATIENCE):
                while not any("log.error.desk" in text for text in logged):
                    await asyncio.sleep(0.02)

    run(scenario())
