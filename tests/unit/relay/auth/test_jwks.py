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
    """A server that answers as a test says.

    Attributes:
        status, body, headers: of its next answers.
        asked: paths that were asked for.
        drip: seconds between two bytes of the body; None sends it whole.
    """

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.headers: dict[str, str] = {}
        self.asked: list[str] = []
        self.drip: float | None = None
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
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
                    pass  # the relay had enough

            def log_message(self, *_: Any) -> None:
                pass

        ended = self.ended = Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/jwks"

    def publish(self, *names: str) -> None:
        """Have a key for each name, whose id it is."""
        self.body = json.dumps({"keys": [jwk("EdDSA", name, kid=name) for name in names]}).encode()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """One that publishes the key ``a``."""
    found = Issuer()
    found.publish("a")
    thread = Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.ended.set()
    found.server.shutdown()
    thread.join()
    found.server.server_close()


def ids(which: Jwks) -> list[str | None]:
    """Ids of its keys."""
    return [] if which.keys is None else [key.kid for key in which.keys.keys]


def go(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test's coroutine, for ten seconds at most."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await work()

    asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that another task brings about."""
    while not true():
        await asyncio.sleep(0.002)


def test_keys_are_there_after_loading(issuer: Issuer) -> None:
    """And the same object stays while the document does, so that verified tokens stay remembered."""

    async def work() -> None:
        which = Jwks(issuer.url, "EdDSA")
        assert which.keys is None
        await which.load()
        assert ids(which) == ["a"]
        before = which.keys
        await which.load()
        assert which.keys is before
        issuer.publish("a", "b")
        await which.load()
        assert ids(which) == ["a", "b"]
        assert (which.fetches, which.failures) == (3, 0)
        assert "2 keys, 0 of 3 fetches failed" in repr(which)

    go(work)


def test_a_failed_fetch_keeps_the_keys(issuer: Issuer) -> None:
    """Whatever is wrong with it; it is counted."""

    async def work() -> None:
        which = Jwks(issuer.url, "EdDSA")
        await which.load()
        whole = issuer.body
        answers: list[tuple[int, bytes, dict[str, str], str]] = [
            (500, whole, {}, "answers 500"),
            (404, whole, {}, "answers 404"),
            (204, b"", {}, "answers 204"),
            (302, b"", {"Location": "http://127.0.0.1:1/elsewhere"}, "redirects are not followed"),
            (301, b"", {"Location": issuer.url}, "redirects are not followed"),
            (200, b"", {}, "not a JSON object"),
            (200, whole[:-5], {}, "not a JSON object"),
            (200, b"<html>", {}, "not a JSON object"),
            (200, b'{"keys": 5}', {}, "no list 'keys'"),
            (200, b'{"keys": []}', {}, "no key for EdDSA"),
            (200, json.dumps({"keys": [jwk("ES256")]}).encode(), {}, "no key for EdDSA"),
            (200, b" " * 262_145, {}, "more than 262144 bytes"),
            (200, json.dumps({"keys": [{**jwk("EdDSA"), "d": "AAAA"}]}).encode(), {}, "private"),
        ]
        for number, (issuer.status, issuer.body, issuer.headers, text) in enumerate(answers, start=1):
            with pytest.raises(KeysError, match=text):
                await which.load()
            assert which.failures == number
            assert ids(which) == ["a"]
        assert set(issuer.asked) == {"/jwks"}

    go(work)


def test_nobody_answers() -> None:
    """The words say where, without what may be secret."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    async def work() -> None:
        which = Jwks(f"http://127.0.0.1:{port}/jwks?code=hunter2", "EdDSA")
        with pytest.raises(KeysError, match=f"cannot fetch .*:{port}/jwks: .*refused") as caught:
            await which.load()
        assert "hunter2" not in f"{caught.value} {which!r}"

    go(work)


@pytest.mark.parametrize("answer", [b"", b"hello\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\n"])
def test_something_else_than_http_answers(answer: bytes) -> None:
    """It is a failed fetch like others."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def work() -> None:
        server = await asyncio.start_server(talk, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(KeysError):
                await Jwks(f"http://127.0.0.1:{port}/", "EdDSA").load()

    go(work)


def test_a_slow_answer_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that sends a byte at a time never runs into the timeout of a read."""
    monkeypatch.setattr(jwks, "FETCH_TIMEOUT", 0.2)
    issuer.drip = 0.02

    async def work() -> None:
        with pytest.raises(KeysError, match="timed out"):
            await Jwks(issuer.url, "EdDSA").load()
        issuer.drip = 5.0
        with pytest.raises(KeysError, match="timed out"):
            await Jwks(issuer.url, "EdDSA").load()
        issuer.ended.set()

    go(work)


def test_a_proxy_of_the_environment_is_not_asked_for_loopback(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could not reach it."""
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "")
    go(Jwks(issuer.url, "EdDSA").load)


def test_an_unknown_key_asks_once_in_ten_seconds(issuer: Issuer) -> None:
    """Whatever strangers send; while one is on its way it is worth waiting."""

    async def work() -> None:
        now = 100.0
        which = Jwks(issuer.url, "EdDSA", clock=lambda: now)
        await which.load()
        issuer.publish("a", "b")
        task = asyncio.create_task(which.run())
        assert which.request_refresh()
        assert which.request_refresh()
        await until(lambda: ids(which) == ["a", "b"])
        await until(lambda: not which.request_refresh())
        for moment in (100.0, 105.0, 109.9):
            now = moment
            assert not which.request_refresh()
        await asyncio.sleep(0.02)
        assert len(issuer.asked) == 2
        now = 110.0
        assert which.request_refresh()
        await until(lambda: len(issuer.asked) == 3)
        await _cancelled(task)

    go(work)


async def _cancelled(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_loop_fetches_again(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time that the answer names, within bounds; at once when nothing was loaded before."""
    monkeypatch.setattr(jwks, "MIN_REFRESH", 0.01)
    issuer.headers = {"Cache-Control": "max-age=0"}

    async def work() -> None:
        which = Jwks(issuer.url, "EdDSA")
        task = asyncio.create_task(which.run())
        await until(lambda: ids(which) == ["a"])
        issuer.publish("b")
        await until(lambda: ids(which) == ["b"])
        await _cancelled(task)

    go(work)


def test_an_outage_is_one_line(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And its end another."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(jwks, "MIN_REFRESH", 0.005)
    issuer.headers = {"Cache-Control": "max-age=0"}

    async def work() -> None:
        which = Jwks(f"{issuer.url}?code=hunter2", "EdDSA")
        task = asyncio.create_task(which.run())
        await until(lambda: ids(which) == ["a"])
        issuer.status = 500
        await until(lambda: which.failures > 3)
        assert ids(which) == ["a"]
        issuer.status = 200
        fetches = which.fetches
        await until(lambda: which.fetches > fetches + 2)
        await _cancelled(task)

    go(work)
    lines = [record.getMessage() for record in caplog.records if record.name == "tickertape.jwks"]
    assert len(lines) == 2
    assert "answers 500; the previous keys stay in use" in lines[0]
    assert "again after failures" in lines[1]
    assert "hunter2" not in caplog.text


def test_an_outage_from_the_start(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Tries go on, sooner than a good answer would have them."""
    monkeypatch.setattr(jwks, "FIRST_RETRY", 0.001)
    issuer.status = 503

    async def work() -> None:
        which = Jwks(issuer.url, "EdDSA")
        task = asyncio.create_task(which.run())
        await until(lambda: which.failures > 2)
        issuer.status = 200
        await until(lambda: ids(which) == ["a"])
        await _cancelled(task)

    go(work)
    assert "no token can be verified until a fetch succeeds" in caplog.text


def test_a_broken_entry_is_told(issuer: Issuer, caplog: pytest.LogCaptureFixture) -> None:
    """Once for each document, not for each fetch."""
    issuer.body = json.dumps({"keys": [jwk("EdDSA", x="AA", kid="odd"), jwk("EdDSA", kid="a")]}).encode()

    async def work() -> None:
        which = Jwks(issuer.url, "EdDSA")
        await which.load()
        await which.load()
        assert ids(which) == ["a"]

    go(work)
    assert caplog.text.count("cannot parse the JWK in") == 1


def test_waits_grow_and_are_left_to_chance_a_little(issuer: Issuer) -> None:
    """So that a fleet of relays does not ask at once."""

    async def work() -> None:
        which = Jwks(issuer.url, "EdDSA", random=lambda: 0.5)
        issuer.headers = {"Cache-Control": "public, max-age=100"}
        await which.load()
        assert which._wait == pytest.approx(90.0)
        issuer.status = 500
        waits = []
        for _ in range(8):
            with pytest.raises(KeysError):
                await which.load()
            waits.append(which._wait)
        assert waits == pytest.approx([0.9, 1.8, 3.6, 7.2, 14.4, 28.8, 54.0, 54.0])

    go(work)


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
def test_how_long_an_answer_counts(header: str | None, seconds: float) -> None:
    """A minute at least, an hour at most."""
    assert refresh_after(header) == seconds
