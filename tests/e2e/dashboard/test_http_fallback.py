"""The dashboard behind a proxy that forbids WebSockets, in a real browser."""

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect

from tests.support.browser.browser_desk import Desk, open_desk, run
from tests.support.patience import PATIENCE

pytestmark = pytest.mark.browser

FORBIDDEN: Final = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

SET_HIDDEN: Final = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
  const value = hidden ? "hidden" : "visible";
  Object.defineProperty(document, "visibilityState", { configurable: true, value });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class Proxy:
    """Proxy that passes on all requests but upgrades.

    Args:
        target: address of the relay.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self.url = ""
        self.streams = 0  # open streams

    @asynccontextmanager
    async def open(self) -> AsyncIterator["Proxy"]:
        """Listen on a free port."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield self
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward = await asyncio.open_connection(self._target.hostname, self._target.port)
        back = asyncio.ensure_future(self._copy(onward_reader, writer))
        streams = 0
        with suppress(OSError):
            while data := await reader.read(65536):
                if b"upgrade: websocket" in data.lower():
                    writer.write(FORBIDDEN)
                    break
                if data.startswith(b"GET /sse"):
                    streams += 1
                    self.streams += 1
                onward.write(data)
        self.streams -= streams
        onward.close()
        await asyncio.wait([back])

    @staticmethod
    async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()


async def until_streams(proxy: Proxy, number: int) -> None:
    """Wait until a number of streams is open."""
    async with asyncio.timeout(PATIENCE):
        while proxy.streams != number:
            await asyncio.sleep(0.02)


async def expect_lines(desk: Desk, *texts: str) -> None:
    """Wait for lines of the log, each of which must be shown once."""
    for text in texts:
        await expect(desk.line(text)).to_have_count(1)


def test_page_falls_back_to_a_stream(tmp_path: Path, nats_server: NatsServer) -> None:
    """The page is live over a stream and says so; while it is hidden it closes the stream, and it continues
    without loss when it is visible again.
    """

    async def scenario() -> None:
        async with (
            open_desk(nats_server, tmp_path, env={}) as desk,
            Proxy(desk.relay.address).open() as proxy,
        ):
            await desk.page.goto(proxy.url)
            await desk.live()
            await expect(desk.page.locator("#link-transport")).to_have_text("over HTTP")
            await expect(desk.page.locator("#link")).to_have_attribute("title", re.compile("no WebSocket"))
            await desk.log("first")
            await expect_lines(desk, "first")
            await until_streams(proxy, 1)
            await desk.page.evaluate(SET_HIDDEN, True)
            await until_streams(proxy, 0)
            await expect(desk.page.locator("#banner-detail")).to_contain_text("while this tab is hidden")
            await desk.log("second")
            await desk.page.evaluate(SET_HIDDEN, False)
            await desk.live()
            await desk.log("third")
            await expect_lines(desk, "first", "second", "third")
            await until_streams(proxy, 1)
            await desk.page.locator("#level").select_option("ERROR")
            await desk.log("fourth", "ERROR")
            await expect_lines(desk, "fourth")
            await until_streams(proxy, 1)
            await expect(desk.page.locator("#lost-box")).to_be_hidden()

    run(scenario())


def test_page_uses_a_websocket_where_it_can(tmp_path: Path, nats_server: NatsServer) -> None:
    """Without such a proxy the page requests no stream, also when its relay restarts or it is hidden."""

    async def scenario() -> None:
        async with open_desk(nats_server, tmp_path) as desk:
            await desk.relay.stop()
            await expect(desk.page.locator("#banner")).to_be_visible()
            await desk.relay.start()
            await desk.live()
            await desk.page.evaluate(SET_HIDDEN, True)
            await desk.log("hidden")
            await desk.page.evaluate(SET_HIDDEN, False)
            await expect_lines(desk, "hidden")
            await expect(desk.page.locator("#link-transport")).to_be_empty()
            streams = [request for request in desk.requests if urlsplit(request.url).path == "/sse"]
            assert [request.method for request in streams if request.method != "HEAD"] == []

    run(scenario())
