"""The client in a Next.js app: packed, installed, rendered on the server, and live in a real browser.

The app is rebuilt only after a change. Its page at ``/`` is rendered per request, with the URL of the test's
relay; the one at ``/public`` has a URL from the build, which the browser resolves to the test's relay. Every
wait is for a state of the page, none for a time.
"""

import asyncio
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from tickertape.contracts.events import EventModel, Status

from tests.support.clients.feed_client import jetstream, line, publish, status
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import NatsServer, free_port

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import BrowserContext, Page, WebSocket, async_playwright, expect

from tests.support.browser.browser_desk import CHROMIUM_FLAGS, PATIENCE_MS, Relay, find_chromium, missing

pytestmark = pytest.mark.browser

APP: Final = Path(__file__).with_name("nextjs")
PACKAGE: Final = APP.parents[2] / "contracts" / "typescript"
NEXT: Final = ["node", "node_modules/next/dist/bin/next"]
BUILD_TIMEOUT: Final = 300.0
PUBLIC_WS_URL: Final = "ws://tickertape-relay/ws"
"""URL set at build time; only the test's browser resolves the name, so that the build contains no port."""

LINES: Final = 200


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "NEXT_TELEMETRY_DISABLED": "1", **more}


def _stamp() -> str:
    """Hash everything that the build depends on."""
    own = [path for path in APP.iterdir() if path.suffix in {".json", ".mjs"}]
    installed = (APP / "node_modules" / "tickertape").rglob("*")
    digest = hashlib.sha256(PUBLIC_WS_URL.encode())
    for path in sorted([*own, *(APP / "app").rglob("*"), *installed]):
        if path.is_file():
            digest.update(b"%s\0%s\0" % (str(path.relative_to(APP)).encode(), path.read_bytes()))
    return digest.hexdigest()


@pytest.fixture(scope="module")
def built() -> Path:
    """Build the app if it changed, and return the folder of the build."""
    if shutil.which("node") is None:
        missing("needs Node.js 18.18 or newer; 'apt-get install nodejs npm' brings it")
    if not (APP / "node_modules" / ".ready").exists():
        missing("needs the packages of the Next.js app in tests/e2e/nextjs; 'make test' brings them")
    # Parallel test processes may need the build at the same time.
    with (APP / "node_modules" / ".building").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp_file = APP / ".next" / "stamp"
        stamp = _stamp()
        if not stamp_file.exists() or stamp_file.read_text() != stamp:
            result = subprocess.run(
                [*NEXT, "build", "--turbopack"],
                cwd=APP,
                env=_environment(NEXT_PUBLIC_WS_URL=PUBLIC_WS_URL),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=BUILD_TIMEOUT,
                check=False,
            )
            assert result.returncode == 0, result.stdout + result.stderr
            stamp_file.write_text(stamp)
    return APP / ".next"


@contextmanager
def serving(folder: Path, port: int, **env: str) -> Iterator[str]:
    """Serve the build, and yield its origin."""
    origin = f"http://127.0.0.1:{port}"
    with (folder / "next.log").open("w+") as log:
        process = subprocess.Popen(
            [*NEXT, "start", "--hostname", "127.0.0.1", "--port", str(port)],
            cwd=APP,
            env=_environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )

        def is_serving() -> bool:
            assert process.poll() is None, (folder / "next.log").read_text()
            try:
                return bool(fetch(origin + "/public"))
            except urllib.error.URLError:
                return False

        try:
            eventually(is_serving, "Next.js serves")
            yield origin
        finally:
            # Kill the process group, because Next.js starts child processes.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def fetch(url: str) -> str:
    """Fetch a page without JavaScript."""
    with urllib.request.urlopen(url) as response:
        return str(response.read().decode())


@dataclass(frozen=True, slots=True)
class App:
    """App in a browser, with its relay.

    Attributes:
        errors: console errors and uncaught exceptions of its pages.
        requests: URLs that its pages requested.
        sockets: WebSockets that its pages opened.
    """

    origin: str
    relay: Relay
    publish: Callable[[EventModel], Awaitable[int]]
    browser: BrowserContext
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sockets: list[WebSocket] = field(default_factory=list)

    async def open(self, path: str = "/") -> Page:
        """Open the page in a new tab."""
        page = await self.browser.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on(
            "console", lambda message: self.errors.append(message.text) if message.type == "error" else None
        )
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.sockets.append(socket))
        await page.goto(self.origin + path)
        return page


@asynccontextmanager
async def open_app(server: NatsServer, folder: Path, *, allowed: bool = True) -> AsyncIterator[App]:
    """Start a relay, the app, and a browser.

    Args:
        server: the relay's NATS server.
        folder: folder for logs.
        allowed: whether the relay allows the app's origin.
    """
    executable = find_chromium()
    port = free_port()
    async with AsyncExitStack() as stack:
        js = await stack.enter_async_context(jetstream(server.url))
        allow = {"TICKERTAPE_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}"} if allowed else {}
        relay = Relay(server.url, 0, allow)
        stack.push_async_callback(relay.stop)
        await relay.start()
        address = relay.address.removeprefix("http://")
        origin = stack.enter_context(serving(folder, port, RELAY_WS_URL=f"ws://{address}/ws"))
        playwright = await stack.enter_async_context(async_playwright())
        resolve = f"--host-resolver-rules=MAP tickertape-relay {address}"
        browser = await playwright.chromium.launch(
            executable_path=executable, args=[*CHROMIUM_FLAGS, resolve]
        )
        stack.push_async_callback(browser.close)
        context = await browser.new_context()
        context.set_default_timeout(PATIENCE_MS)
        expect.set_options(timeout=PATIENCE_MS)
        yield App(origin, relay, lambda event: publish(js, event), context)


async def expect_phase(page: Page, phase: str) -> None:
    await expect(page.locator("#connection")).to_have_attribute("data-phase", phase)


def test_the_app_has_the_current_package(built: Path) -> None:
    """The app uses the current build of the packed client."""
    installed = APP / "node_modules" / "tickertape"
    assert not installed.is_symlink()
    packed, used = (
        {p.name: p.read_bytes() for p in (top / "dist").iterdir()} for top in (PACKAGE, installed)
    )
    assert {name for name in {*packed, *used} if packed.get(name) != used.get(name)} == set(), (
        "run 'make test' to pack it"
    )


def test_the_build_has_the_public_address(built: Path) -> None:
    """Next.js replaces NEXT_PUBLIC_WS_URL by its value in the browser bundles, including the package."""
    scripts = [path.read_text() for path in (built / "static").rglob("*.js")]
    assert any(f'"{PUBLIC_WS_URL}"' in script for script in scripts)
    assert not any("NEXT_PUBLIC_WS_URL" in script for script in scripts)


def test_the_server_renders_the_page(built: Path, tmp_path: Path) -> None:
    """Without JavaScript and without a relay the page is rendered and shows that it is connecting."""
    with serving(tmp_path, free_port(), RELAY_WS_URL="ws://127.0.0.1:9/ws") as origin:
        for path in ("/", "/public"):
            html = fetch(origin + path)
            assert re.search(
                r'data-phase="connecting"[^>]*><b>connecting</b> <span id="reason"></span>', html
            )
            assert '<section aria-label="Gateways">' in html
            assert '<section aria-label="Logs">' in html
            assert '<output id="received"></output>' in html
            assert ("127.0.0.1:9" in html) == (path == "/")


@pytest.mark.parametrize("path", ["/", "/public"])
def test_the_page_hydrates(built: Path, nats_server: NatsServer, tmp_path: Path, path: str) -> None:
    """The page hydrates without errors, shows events, and closes its feed when the user leaves it."""

    async def run() -> None:
        async with open_app(nats_server, tmp_path) as app:
            await app.publish(status("before", Status.DEGRADED))
            page = await app.open(path)
            await expect_phase(page, "live")
            tile = page.locator('[data-gateway="ctp.main"]')
            await expect(page.locator('[data-gateway="before"]')).to_have_text("before: DEGRADED")
            await app.publish(status("ctp.main", Status.HEALTHY))
            await expect(tile).to_have_text("ctp.main: HEALTHY")
            await app.publish(status("ctp.main", Status.UNHEALTHY))
            await expect(tile).to_have_attribute("data-status", "UNHEALTHY")
            seq = await app.publish(line("order 8f31 rejected", "ERROR", source="desk"))
            row = page.locator(f'.lines [data-seq="{seq}"]')
            await expect(row).to_have_text("ERROR desk: order 8f31 rejected")
            await app.publish(status("ctp.main", Status.REMOVED))
            await expect(tile).to_have_count(0)
            # The other page uses another URL: this one's connection is closed, without a document load.
            (socket,) = app.sockets
            async with socket.expect_event("close"):
                await page.locator(f'nav a:not([href="{path}"])').click()
            await expect(page).not_to_have_url(app.origin + path)
            await expect_phase(page, "live")
            await expect(page.locator("[data-gateway]")).to_have_text(["before: DEGRADED"])
            assert len(app.sockets) == 2
            assert app.errors == []
            elsewhere = [url for url in app.requests if not url.startswith((app.origin, "data:"))]
            assert elsewhere == []

    asyncio.run(run())


def test_three_tabs_survive_a_relay_that_is_killed(
    built: Path, nats_server: NatsServer, tmp_path: Path
) -> None:
    """Three tabs receive every event once and in order, although the relay is killed in between."""

    async def run() -> None:
        async with open_app(nats_server, tmp_path) as app:
            tabs = [await app.open(path) for path in ("/", "/public", "/")]
            for tab in tabs:
                await expect_phase(tab, "live")
            published: list[int] = []

            async def lines(count: int) -> None:
                published.extend([await app.publish(line(f"line {number}")) for number in range(count)])

            await lines(LINES)
            await app.relay.stop(signal.SIGKILL)
            for tab in tabs:
                await expect_phase(tab, "reconnecting")
                await expect(tab.locator("#reason")).not_to_be_empty()
                await expect(tab.locator("main [role=alert]")).to_have_count(0)
            await lines(LINES)
            published.append(await app.publish(status("ctp.main", Status.DEGRADED)))
            await app.relay.start()
            await lines(LINES)
            for tab in tabs:
                await expect_phase(tab, "live")
                await expect(tab.locator("#received")).to_have_text(" ".join(map(str, published)))
                await expect(tab.locator(".lines li")).to_have_count(LINES)
                await expect(tab.locator("[data-gap]")).to_have_count(0)
                await expect(tab.locator('[data-gateway="ctp.main"]')).to_have_text("ctp.main: DEGRADED")

    asyncio.run(run())


def test_a_rejected_origin_is_reported(built: Path, nats_server: NatsServer, tmp_path: Path) -> None:
    """If the relay does not allow the app's origin, the page shows that it cannot connect."""

    async def run() -> None:
        async with open_app(nats_server, tmp_path, allowed=False) as app:
            await app.publish(status("ctp.main", Status.HEALTHY))
            page = await app.open()
            await expect_phase(page, "reconnecting")
            await expect(page.locator("#reason")).not_to_be_empty()
            await expect(page.locator("main [role=alert]")).to_contain_text("Never connected")
            async with page.expect_event("websocket"):
                pass  # Another attempt, which is rejected as well.
            await expect_phase(page, "reconnecting")
            # The WebSocket, and the request that finds out whether plain HTTP passes.
            expected = ("403", "blocked by CORS policy", "net::ERR_FAILED")
            assert [error for error in app.errors if not any(text in error for text in expected)] == []
            await expect(page.locator(".tiles li")).to_have_count(0)

    asyncio.run(run())
