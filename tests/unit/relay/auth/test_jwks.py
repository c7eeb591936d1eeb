"""The issuer's keys, fetched from a real server on loopback."""

import asyncio
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Any

import pytest
from tickertape.relay.auth import jwks
from tickertape.relay.auth.jwks import Jwks, refresh_after
from tickertape.relay.auth.keys import KeysError

from tests.support.clients.forge import jwk
from tests.support.patience import PATIENCE


class Issuer:
    """JWKS server whose responses are set by a test.

    Attributes:
        status, body, headers: sent in the next responses.
        requests: requested paths.
        drip: seconds between two bytes of the body; None sends it in one write.
    """

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.headers: dict[str, str] = {}
        self.requests: list[str] = []
        self.drip: float | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests.append(self.path)
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    if issuer.drip is None:
                        self.wfile.write(issuer.body)
                    else:
                        for byte in issuer.body:
                            self.wfile.write(bytes([byte]))
                            self.wfile.flush()
                            ended.wait(issuer.drip)
                except OSError:
                    pass  # the relay closed the connection

            def log_message(self, *_: Any) -> None:
                pass

        ended = self.ended = Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"

    def publish(self, *names: str) -> None:
        """Publish one key for each name, with the name as its id."""
        self.body = json.dumps({"keys": [jwk("EdDSA", name, kid=name) for name in names]}).encode()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Yield a running issuer that publishes the key ``a``."""
    found = Issuer()
    found.publish("a")
    thread = Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.ended.set()
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def ids(source: Jwks) -> list[str | None]:
    """Return the ids of the loaded keys."""
    return [] if source.keys is None else [key.kid for key in source.keys.keys]


def run_with_timeout(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine with a timeout."""

    async def run_bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario()

    asyncio.run(run_bounded())


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    while not condition():
        await asyncio.sleep(0.002)


def test_unchanged_keys_stay_the_same_object(issuer: Issuer) -> None:
    """The key set object is only replaced if the document changes, so that verified tokens stay cached."""

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        assert source.keys is None
        await source.load()
        assert ids(source) == ["a"]
        before = source.keys
        await source.load()
        assert source.keys is before
        issuer.publish("a", "b")
        await source.load()
        assert ids(source) == ["a", "b"]
        assert (source.fetches, source.failures) == (3, 0)
        assert "2 keys, 0 of 3 fetches failed" in repr(source)

    run_with_timeout(scenario)


def test_a_slow_fetch_does_not_bring_old_keys_back(issuer: Issuer) -> None:
    """A reload during a slow fetch waits for it, so that keys withdrawn meanwhile stay withdrawn."""

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        issuer.drip = PATIENCE
        slow = asyncio.create_task(source.load())
        await wait_until(lambda: bool(issuer.requests))
        await asyncio.sleep(0.05)
        issuer.drip = None
        issuer.publish("b")
        reload = asyncio.create_task(source.load())
        await asyncio.sleep(0.1)
        issuer.ended.set()
        await asyncio.gather(slow, reload)
        assert ids(source) == ["b"]

    run_with_timeout(scenario)


def test_a_failed_fetch_keeps_the_keys(issuer: Issuer) -> None:
    """Every kind of failed fetch is counted and keeps the keys loaded before."""

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        await source.load()
        document = issuer.body
        responses: list[tuple[int, bytes, dict[str, str], str]] = [
            (500, document, {}, "returned HTTP 500"),
            (404, document, {}, "returned HTTP 404"),
            (204, b"", {}, "returned HTTP 204"),
            (302, b"", {"Location": "http://127.0.0.1:1/elsewhere"}, "redirects are not followed"),
            (301, b"", {"Location": issuer.url}, "redirects are not followed"),
            (200, b"", {}, "not a JSON object"),
            (200, document[:-5], {}, "not a JSON object"),
            (200, b"<html>", {}, "not a JSON object"),
            (200, b'{"keys": 5}', {}, "no list 'keys'"),
            (200, b'{"keys": []}', {}, "no key for EdDSA"),
            (200, json.dumps({"keys": [jwk("ES256")]}).encode(), {}, "no key for EdDSA"),
            (200, b" " * 262_145, {}, "more than 262144 bytes"),
            (200, json.dumps({"keys": [{**jwk("EdDSA"), "d": "AAAA"}]}).encode(), {}, "private"),
        ]
        for number, (issuer.status, issuer.body, issuer.headers, text) in enumerate(responses, start=1):
            with pytest.raises(KeysError, match=text):
                await source.load()
            assert source.failures == number
            assert ids(source) == ["a"]
        assert set(issuer.requests) == {"/jwks"}

    run_with_timeout(scenario)


def test_a_refused_connection_is_an_error() -> None:
    """A refused connection is an error that names the URL without its query, which may hold a secret."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def scenario() -> None:
        source = Jwks(f"http://127.0.0.1:{port}/jwks?code=hunter2", "EdDSA")
        with pytest.raises(KeysError, match=f"cannot fetch .*:{port}/jwks: .*refused") as caught:
            await source.load()
        assert "hunter2" not in f"{caught.value} {source!r}"

    run_with_timeout(scenario)


@pytest.mark.parametrize("response", [b"", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_an_invalid_http_response_is_an_error(response: bytes) -> None:
    """A response that is not HTTP is a failed fetch."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(response)
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(respond, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(KeysError):
                await Jwks(f"http://127.0.0.1:{port}/", "EdDSA").load()

    run_with_timeout(scenario)


def test_a_slow_response_times_out(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch times out as a whole, since a body sent byte by byte never runs into the timeout of a read."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.2)
    issuer.drip = 0.02

    async def scenario() -> None:
        with pytest.raises(KeysError, match="no response within"):
            await Jwks(issuer.url, "EdDSA").load()
        issuer.drip = 5.0
        with pytest.raises(KeysError, match="no response within"):
            await Jwks(issuer.url, "EdDSA").load()
        issuer.ended.set()

    run_with_timeout(scenario)


def test_loopback_is_fetched_without_a_proxy(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A loopback URL is fetched directly, since a proxy from the environment could not reach it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    run_with_timeout(Jwks(issuer.url, "EdDSA").load)


def test_unknown_keys_cause_one_fetch_per_ten_seconds(issuer: Issuer) -> None:
    """Tokens with unknown keys cause one fetch per ten seconds; clients may wait while one is in progress."""

    async def scenario() -> None:
        now = 100.0
        source = Jwks(issuer.url, "EdDSA", clock=lambda: now)
        await source.load()
        issuer.publish("a", "b")
        task = asyncio.create_task(source.run())
        assert source.request_refresh()
        assert source.request_refresh()
        await wait_until(lambda: ids(source) == ["a", "b"])
        await wait_until(lambda: not source.request_refresh())
        for moment in (100.0, 105.0, 109.9):
            now = moment
            assert not source.request_refresh()
        await asyncio.sleep(0.02)
        assert len(issuer.requests) == 2
        now = 110.0
        assert source.request_refresh()
        await wait_until(lambda: len(issuer.requests) == 3)
        await _cancel(task)

    run_with_timeout(scenario)


def test_a_client_with_invented_keys_does_not_lock_out_a_new_key(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is published after another client used up the fetch is found by the next fetch."""
    monkeypatch.setattr("tickertape.relay.auth.jwks.MIN_FETCH_INTERVAL", 0.2)
    monkeypatch.setattr("tickertape.relay.auth.jwks.MAX_UNKNOWN", 3)

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        await source.load()
        task = asyncio.create_task(source.run())
        assert source.request_refresh("invented")
        await wait_until(lambda: len(issuer.requests) == 2 and not source.request_refresh("invented"))
        issuer.publish("a", "new")
        assert source.request_refresh("new"), "no fetch has looked for it"
        for number in range(10):
            assert source.request_refresh(f"invented {number}")
            assert source.request_refresh("new")
        await wait_until(lambda: ids(source) == ["a", "new"])
        await _cancel(task)

    run_with_timeout(scenario)


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_loop_fetches_again(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop loads keys immediately, and again after the time that the response states, within bounds."""
    monkeypatch.setattr(jwks, "MIN_REFRESH", 0.01)
    issuer.headers = {"Cache-Control": "max-age=0"}

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        task = asyncio.create_task(source.run())
        await wait_until(lambda: ids(source) == ["a"])
        issuer.publish("b")
        await wait_until(lambda: ids(source) == ["b"])
        await _cancel(task)

    run_with_timeout(scenario)


def test_an_outage_is_logged_once(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An outage is logged with one line when it starts and one when it ends."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(jwks, "MIN_REFRESH", 0.005)
    issuer.headers = {"Cache-Control": "max-age=0"}

    async def scenario() -> None:
        source = Jwks(f"{issuer.url}?code=hunter2", "EdDSA")
        task = asyncio.create_task(source.run())
        await wait_until(lambda: ids(source) == ["a"])
        issuer.status = 500
        await wait_until(lambda: source.failures > 3)
        assert ids(source) == ["a"]
        issuer.status = 200
        fetches = source.fetches
        await wait_until(lambda: source.fetches > fetches + 2)
        await _cancel(task)

    run_with_timeout(scenario)
    lines = [record.getMessage() for record in caplog.records if record.name == "tickertape.jwks"]
    assert len(lines) == 2
    assert "returned HTTP 500; the previous keys stay in use" in lines[0]
    assert "again after failures" in lines[1]
    assert "hunter2" not in caplog.text


def test_an_outage_at_startup_is_retried_soon(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While no keys were ever loaded, fetches are retried sooner than after a success."""
    monkeypatch.setattr(jwks, "FIRST_RETRY", 0.001)
    issuer.status = 503

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        task = asyncio.create_task(source.run())
        await wait_until(lambda: source.failures > 2)
        issuer.status = 200
        await wait_until(lambda: ids(source) == ["a"])
        await _cancel(task)

    run_with_timeout(scenario)
    assert "no token can be verified until a fetch succeeds" in caplog.text


def test_a_broken_entry_is_logged_once(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """A broken entry is logged once for each document, not once for each fetch."""
    issuer.body = json.dumps({"keys": [jwk("EdDSA", x="AA", kid="odd"), jwk("EdDSA", kid="a")]}).encode()

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA")
        await source.load()
        await source.load()
        assert ids(source) == ["a"]

    run_with_timeout(scenario)
    assert caplog.text.count("cannot parse the JWK in") == 1


def test_retry_delays_grow_and_have_jitter(issuer: Issuer) -> None:
    """Retry delays grow and have jitter, so that many relays do not send their requests simultaneously."""

    async def scenario() -> None:
        source = Jwks(issuer.url, "EdDSA", random=lambda: 0.5)
        issuer.headers = {"Cache-Control": "public, max-age=100"}
        await source.load()
        assert source._wait == pytest.approx(90.0)
        issuer.status = 500
        waits = []
        for _ in range(8):
            with pytest.raises(KeysError):
                await source.load()
            waits.append(source._wait)
        assert waits == pytest.approx([0.9, 1.8, 3.6, 7.2, 14.4, 28.8, 54.0, 54.0])

    run_with_timeout(scenario)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 300),
        ("", 300),
        ("no-cache", 300),
        ("max-age=600", 600),
        ("public, Max-Age=600, must-revalidate", 600),
        ('max-age="600"', 600),
        ("max-age=1", 60),
        ("max-age=999999999", 3600),
        ("max-age=-1", 300),
        ("max-age=abc", 300),
        ("s-max-age=600", 300),
        ("no-store,max-age=120", 120),
    ],
)
def test_the_refresh_interval_follows_the_header(header: str | None, seconds: float) -> None:
    """The refresh interval is the ``max-age``, between a minute and an hour, or else five minutes."""
    assert refresh_after(header) == seconds
