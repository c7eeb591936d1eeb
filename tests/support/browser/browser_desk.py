"""A dashboard in a real browser, with its own relay; for the browser tests.

Invariants: the relay is a separate process, found by the address that it prints, and restarted on the same
port; everything started here is stopped here, in whatever state it is; an error on the page fails the test.

A browser takes seconds to start, so the tests of one process share it: each has a context of its own, with
its own cache, storage and pages. A browser belongs to an event loop, so they share that too: ``run`` is their
``asyncio.run``.
"""

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import nats
import pytest
from playwright.async_api import (
    Browser,
    Locator,
    Page,
    Playwright,
    Request,
    WebSocket,
    async_playwright,
    expect,
)
from tickertape.contracts.events import EventModel, GatewayStatusChange, Status, SystemLog

from tests.support.patience import PATIENCE
from tests.support.programs import relay_process
from tests.support.servers.nats_server import NatsServer

PATIENCE_MS: Final = 1000 * PATIENCE
"""The same bound for the page, in milliseconds."""

CHROMIUM_FLAGS: Final = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


T = TypeVar("T")


class _Shared:
    """Event loop of all browser tests of a process, and its browser."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._runner is None:
            self._runner = asyncio.Runner()
        return self._runner.run(asyncio.wait_for(work, 10 * PATIENCE))

    async def browser(self) -> Browser:
        """Start the browser unless it is running."""
        if self._browser is None or not self._browser.is_connected():
            executable = find_chromium()
            if self._playwright is None:
                self._playwright = await async_playwright().start()
            self._browser = await self._playwright.chromium.launch(
                executable_path=executable, args=CHROMIUM_FLAGS
            )
        return self._browser

    def close(self) -> None:
        """Stop the browser; idempotent."""
        if self._runner is None:
            return
        self._runner.run(self._close())
        self._runner.close()
        self._runner = None

    async def _close(self) -> None:
        if self._browser is not None:
            await self._browser.close()
        if self._playwright is not None:
            await self._playwright.stop()
        self._browser = self._playwright = None


_shared: Final = _Shared()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run the body of a browser test."""
    return _shared.run(work)


def close() -> None:
    """Stop the browser of this process, if there is one."""
    _shared.close()


def find_chromium() -> str:
    """Return the system's Chromium; skip the test without one, except in CI."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    return missing("needs Chromium; 'apt-get install chromium' brings it")


def missing(reason: str) -> NoReturn:
    """Skip a test because a program is missing; in CI, where none may be missing, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


class Relay:
    """A relay as a child process, for use in an event loop; it keeps its port across restarts."""

    def __init__(self, nats_url: str, client_rate: int, env: Mapping[str, str]) -> None:
        self._relay = relay_process.Relay(nats_url, "--client-rate", str(client_rate), **env)

    @property
    def address(self) -> str:
        return self._relay.url

    @property
    def metrics_address(self) -> str:
        return f"{self._relay.ops_url}/metrics"

    @property
    def log(self) -> str:
        """Log since its last start."""
        return "".join(self._relay.lines + self._relay.log)

    async def start(self) -> None:
        """Start the relay, and return when it reports ready."""
        await asyncio.to_thread(self._relay.start)

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the relay and wait for its exit, if it is running."""
        await asyncio.to_thread(self._relay.end, how)


@dataclass(frozen=True, slots=True)
class Desk:
    """An open page and its backend.

    Attributes:
        publish: publishes an event.
        raw: publishes an event that no model knows.
        errors: errors on the page's console.
        requests: requests of the page.
        sockets: WebSockets of the page.
    """

    page: Page
    relay: Relay
    publish: Callable[[EventModel], Awaitable[None]]
    raw: Callable[[str, bytes], Awaitable[None]]
    errors: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    sockets: list[WebSocket] = field(default_factory=list)

    async def visit(self, position: str) -> None:
        """Open the page, served from a given address."""
        await self.page.goto(self.relay.address + position)

    def tile(self, gateway: str) -> Locator:
        return self.page.locator(f'.tile[data-gateway="{gateway}"]')

    def line(self, message: str) -> Locator:
        return self.page.locator("#feed .row").filter(has_text=message)

    async def log(self, message: str, level: str = "INFO") -> None:
        await self.publish(SystemLog.model_validate({"level": level, "message": message, "source": "desk"}))

    async def status(self, previous: Status, current: Status, gateway: str = "ctp.main") -> None:
        await self.publish(
            GatewayStatusChange(
                gateway_id=gateway,
                gateway_type="ctp",
                previous_status=previous,
                current_status=current,
                metadata={
                    "group": "futures",
                    "probe": "tcp",
                    "error": "connection refused",
                    "latency_ms": 12.4,
                },
            )
        )

    async def live(self) -> None:
        await expect(self.page.locator("#link")).to_have_attribute("data-phase", "live")


@asynccontextmanager
async def open_desk(
    server: NatsServer,
    folder: Path,
    *first: EventModel,
    client_rate: int = 0,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Desk]:
    """Start a relay, publish the initial history, and open the page.

    Args:
        server: its NATS server.
        folder: folder for its log.
        first: events to publish before the page opens.
        client_rate: log events per second; 0 means no limit.
        env: additional environment of the relay; with it the page is not opened yet.
    """
    browser = await _shared.browser()
    async with AsyncExitStack() as stack:
        client = await nats.connect(server.url, reconnect_time_wait=0.1, max_reconnect_attempts=-1)
        stack.push_async_callback(client.close)
        jetstream = client.jetstream(timeout=PATIENCE)

        async def raw(subject: str, payload: bytes) -> None:
            await jetstream.publish(subject, payload)

        async def publish(event: EventModel) -> None:
            await raw(event.subject, event.encode())

        relay = Relay(server.url, client_rate, env or {})
        stack.callback(lambda: (folder / "relay.log").write_text(relay.log))
        stack.push_async_callback(relay.stop)
        await relay.start()
        for event in first:
            await publish(event)
        context = await browser.new_context()
        stack.push_async_callback(context.close)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on(
            "console",
            lambda output: faults.append(output.text) if "Content Security" in output.text else None,
        )
        desk = Desk(page, relay, publish, raw)
        page.on("console", lambda output: desk.errors.append(output.text) if output.type == "error" else None)
        page.on("request", lambda request: desk.requests.append(request))
        page.on("websocket", lambda socket: desk.sockets.append(socket))
        if env is None:
            await desk.visit("/")
            await desk.live()
        yield desk
        assert faults == []


__all__ = [
    "CHROMIUM_FLAGS",
    "PATIENCE_MS",
    "Desk",
    "Relay",
    "close",
    "find_chromium",
    "missing",
    "open_desk",
    "run",
]
