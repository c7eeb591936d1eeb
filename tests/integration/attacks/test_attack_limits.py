"""Clients that use up shared resources: slow ones, floods, too many per address, and forged proxy headers."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, ExitStack

import pytest
from tickertape.contracts.messages import Bye

from tests.support.clients import forge
from tests.support.clients.attacker import (
    bearer,
    claims,
    count,
    exchange,
    get,
    read_all,
    read_until,
    until,
    upgrade,
)
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, FeedClient, follow, run
from tests.support.patience import undisturbed
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

PROXY = "127.0.0.9"
"""Address of a trusted proxy; attackers come from other addresses of 127.0.0.0/8."""

PER_ADDRESS = 4
UNAUTHENTICATED = 8
MESSAGES = 50

HEAD_TIME = 5.0
"""Seconds that the relay waits for a request head or a token."""


@pytest.fixture(scope="module")
def relay(nats: NatsServer, prefix: str) -> Iterator[Relay]:
    """Run a relay with low limits."""
    env = {
        "TICKERTAPE_JWT_ALGORITHM": "HS256",
        "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode(),
        "TICKERTAPE_SUBJECT_PREFIX": prefix,
        "TICKERTAPE_TRUSTED_PROXIES": PROXY,
    }
    limits = (
        "--max-address-connections", str(PER_ADDRESS), "--max-unauthenticated", str(UNAUTHENTICATED),
        "--message-rate", str(MESSAGES),
    )  # fmt: skip
    with Relay(nats.url, "--auth", "jwt", *limits, **env) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a valid token."""
    return forge.token("HS256", claims(sub="honest"))


@pytest.fixture
def good() -> str:
    """Return another client's token."""
    return forge.token("HS256", claims(sub="mallory"))


@pytest.fixture(autouse=True)
def nobody_waits(relay: Relay) -> None:
    """Wait until the sockets of the previous test are closed."""
    eventually(lambda: count(relay, "sockets_unauthenticated") == 0, "no socket without a session")


async def slowly(
    relay: Relay, source: str, first: bytes, rest: bytes, mark: bytes = b"HTTP/1.1 4"
) -> tuple[bytes, float]:
    """Send some bytes, then one byte every 0.3 s; return what arrives with a mark, and after how many
    seconds.
    """
    reader, writer = await asyncio.open_connection(*relay.host_port, local_addr=(source, 0))
    started = time.monotonic()

    async def drip() -> None:
        for byte in rest * 100:
            await asyncio.sleep(0.3)
            writer.write(bytes([byte]))

    writer.write(first)
    dripping = asyncio.ensure_future(drip())
    data = b""
    try:
        while mark not in data:
            more = await asyncio.wait_for(reader.read(65_536), PATIENCE)
            assert more
            data += more
    finally:
        dripping.cancel()
        writer.close()
    return data, time.monotonic() - started


def test_slow_ones_have_five_seconds(relay: Relay, good: str) -> None:
    """A request head and a token must arrive within five seconds; a request body is rejected immediately."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nX: "
    complete = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"

    async def check() -> None:
        before = {name: count(relay, "rejected_total", limit=name) for name in ("head_time", "auth_time")}
        dripped, silent, second, frame, body = await asyncio.gather(
            slowly(relay, "127.0.0.2", head, b"a"),
            slowly(relay, "127.0.0.2", b"", b""),
            slowly(relay, "127.0.0.2", complete + head, b"a"),
            slowly(relay, "127.0.0.3", upgrade("/ws"), b"\x81\xfe\x10\x00", b'"code":4408'),
            slowly(relay, "127.0.0.3", head + b"\r\nContent-Length: 1000\r\n\r\n", b"a"),
        )
        for data, after in (dripped, silent):
            assert data.startswith(b"HTTP/1.1 408 ")
            assert json.loads(data.partition(b"\r\n\r\n")[2])["code"] == "bad_query"
            assert after > 4.5
        assert second[0].count(b"HTTP/1.1 ") == 2
        assert b"HTTP/1.1 408 " in second[0]
        assert min(second[1], frame[1]) > 4.5
        assert body[0].startswith(b"HTTP/1.1 400 ")
        assert count(relay, "rejected_total", limit="head_time") == before["head_time"] + 3
        assert count(relay, "rejected_total", limit="auth_time") == before["auth_time"] + 1

    run(check())


FLOODS = {
    "pings": b"\x89\x80\0\0\0\0" * 80,
    "pongs": b"\x8a\x80\0\0\0\0" * 80,
    "messages": b'\x81\x8f\0\0\0\0{"type":"ping"}' * 80,
    "fragments": b"\x01\x81\0\0\0\0{" + b"\0\x80\0\0\0\0" * 80,
    "large ones": (b"\x81\xff" + (900_000).to_bytes(8, "big") + b"\0\0\0\0" + b" " * 900_000),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_ends_its_session(relay: Relay, good: str, name: str) -> None:
    """A flood of frames of any kind, or of bytes, is closed with 4429 and a retry delay."""
    before = count(relay, "rejected_total", limit="message_rate")
    with socket.create_connection(relay.host_port, PATIENCE, ("127.0.0.2", 0)) as link:
        link.sendall(upgrade("/ws", bearer(good)))
        read_until(link, b'"type":"snapshot"')
        link.sendall(FLOODS[name])
        data = b""
        while b"\x88" not in data.partition(b'"type":"bye"')[2]:
            more = link.recv(65_536)
            assert more
            data += more
    assert b'"type":"bye","code":4429' in data
    assert b'"retry_after_ms":1000' in data
    assert count(relay, "rejected_total", limit="message_rate") == before + 1


def test_the_close_reason_has_the_limit_of_the_client(relay: Relay) -> None:
    """A client that has sent no token has a tenth of the rate, and is told so."""
    with socket.create_connection(relay.host_port, PATIENCE, ("127.0.0.2", 0)) as link:
        link.sendall(upgrade("/ws") + FLOODS["pongs"])
        data = read_until(link, b"per second")
    assert f"more than {MESSAGES // 10} frames per second".encode() in data


async def sessions(
    stack: AsyncExitStack, relay: Relay, number: int, source: str, token: str
) -> list[FeedClient]:
    """Connect a number of clients from one address."""
    return [
        await stack.enter_async_context(follow(relay.ws_url, token=token, source=source))
        for _ in range(number)
    ]


async def alive(feeds: list[FeedClient]) -> bool:
    """Check that each client is still connected."""
    for feed in feeds:
        await feed.send_message(type="ping", id=7)
        await feed.until(lambda: feed.messages[-1].type == "pong")  # noqa: B023
        assert only(feed.messages, Bye) == []
    return True


def test_an_address_has_so_many_sockets(relay: Relay, good: str) -> None:
    """Beyond its limit an address gets 429 with ``Retry-After`` before anything is parsed, until one
    closes.
    """

    async def check() -> None:
        before = count(relay, "rejected_total", limit="address_connections")
        async with AsyncExitStack() as stack:
            feeds = await sessions(stack, relay, PER_ADDRESS, "127.0.0.2", good)
            spoofs = ["X-Forwarded-For: 10.9.9.9", "Forwarded: for=10.9.9.9", "X-Real-IP: 10.9.9.9"]
            for request in (
                upgrade("/ws", bearer(good)),
                get("/"),
                get("/", *spoofs),
                get("/" + "x" * 10_000),
            ):
                answer = await asyncio.to_thread(exchange, relay, request, source="127.0.0.2")
                assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many", "5")
            assert count(relay, "rejected_total", limit="address_connections") == before + 4
            await sessions(stack, relay, 1, "127.0.0.3", good)
            assert await alive(feeds)
            await feeds[0].socket.close()
            await asyncio.to_thread(
                eventually, lambda: exchange(relay, get("/"), source="127.0.0.2").status == 200, "room again"
            )
            assert await alive(feeds[1:])

    run(check())


def test_an_untrusted_peer_cannot_speak_for_another_address(relay: Relay, good: str) -> None:
    """``X-Forwarded-For`` of an untrusted peer affects no address's count."""
    spoof = "X-Forwarded-For: 127.0.0.6"
    with ExitStack() as stack:
        for _ in range(PER_ADDRESS):
            link = socket.create_connection(relay.host_port, PATIENCE, ("127.0.0.5", 0))
            stack.enter_context(link)
            link.sendall(upgrade("/ws", bearer(good), spoof))
            assert link.recv(20).startswith(b"HTTP/1.1 101")
        assert exchange(relay, get("/", spoof), source="127.0.0.5").status == 429
        assert exchange(relay, get("/"), source="127.0.0.6").status == 200
        assert count(relay, "sockets") >= PER_ADDRESS


def proxied(relay: Relay, token: str, *headers: str) -> socket.socket:
    """Open a session through the proxy."""
    link = socket.create_connection(relay.host_port, PATIENCE, (PROXY, 0))
    link.sendall(upgrade("/ws", bearer(token), *headers))
    assert link.recv(20).startswith(b"HTTP/1.1 101")
    return link


def test_a_trusted_proxy_identifies_its_clients(relay: Relay, good: str) -> None:
    """Clients of a trusted proxy have a limit each; entries that they wrote themselves are ignored."""
    with ExitStack() as stack:
        for _ in range(PER_ADDRESS):
            stack.enter_context(proxied(relay, good, "X-Forwarded-For: 10.0.0.1"))
        for header in (
            "10.0.0.1",
            "10.0.0.2, 10.0.0.1",
            "10.0.0.3,10.0.0.1, 127.0.0.9",
            "10.0.0.1:1234",
        ):
            answer = exchange(relay, upgrade("/ws", bearer(good), f"X-Forwarded-For: {header}"), source=PROXY)
            assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "too_many", "5")
            assert exchange(relay, get("/", f"X-Forwarded-For: {header}"), source=PROXY).status == 429
        forwarded = 'Forwarded: for=10.0.0.9, for="10.0.0.1:80";proto=https'
        assert exchange(relay, get("/", forwarded), source=PROXY).status == 429
        # A browser is rejected after the handshake: its address is only known from the proxy's header.
        protocols = "Sec-WebSocket-Protocol: tickertape.v1"
        request = upgrade("/ws", bearer(good), "X-Forwarded-For: 10.0.0.1", protocols)
        data = until(relay, request, b'"retry_after_ms":5000', source=PROXY)
        assert data.startswith(b"HTTP/1.1 101")
        assert b'"type":"bye","code":4429' in data
        for header in (
            "10.0.0.2",
            "10.0.0.1, 10.0.0.2",
            "unknown",
            "nonsense",
            "10.0.0.1, _hidden",
            "",
        ):
            stack.enter_context(proxied(relay, good, f"X-Forwarded-For: {header}"))


def test_sockets_without_a_session_are_evicted(relay: Relay, good: str) -> None:
    """Beyond the limit the oldest idle socket without a session is closed, and a valid token is still
    accepted.
    """

    def idle(number: int, send: bytes = b"") -> socket.socket:
        link = socket.create_connection(relay.host_port, PATIENCE, (f"127.0.1.{number}", 0))
        link.sendall(send)
        return link

    def all_wait() -> None:
        eventually(lambda: count(relay, "sockets_unauthenticated") == UNAUTHENTICATED, "all wait", HEAD_TIME)

    async def check() -> None:
        before = count(relay, "rejected_total", limit="unauthenticated")
        async with AsyncExitStack() as stack:
            feeds = await sessions(stack, relay, 2, "127.0.0.7", good)
            waiting = [idle(1), idle(2, b"GET / HT"), idle(3, upgrade("/ws"))]
            waiting += [idle(4 + n) for n in range(UNAUTHENTICATED - 3)]
            for link in waiting:
                stack.callback(link.close)
            all_wait()
            assert count(relay, "rejected_total", limit="unauthenticated") == before
            feeds += await sessions(stack, relay, 3, "127.0.0.8", good)
            for number in range(3):
                stack.callback(idle(20 + number).close)
            all_wait()
            assert await alive(feeds)
            for cut in waiting[:3]:
                data = await asyncio.to_thread(read_all, cut)
                assert b"408" not in data
                assert b"4408" not in data
            assert count(relay, "rejected_total", limit="unauthenticated") == before + 3

    def scenario(_: int) -> None:
        eventually(lambda: count(relay, "sockets_unauthenticated") == 0, "no socket without a session")
        run(check())

    undisturbed(scenario, HEAD_TIME)
