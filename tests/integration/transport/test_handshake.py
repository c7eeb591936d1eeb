"""How a connection starts and ends: handshake, close codes, HTTP rejections, limits."""

import asyncio
import json
import socket
from collections.abc import Iterator

import pytest
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, Bye
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.clients.attacker import masked, read_until, upgrade
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, follow, run
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for all tests of this file; none of them publishes."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server, Relay(server.url) as running:
        yield running


def exchange(relay: Relay, request: bytes, *, end: bool = False) -> tuple[int, dict[str, str], bytes]:
    """Send bytes and read to the end of the connection; return status, headers and body."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
        link.sendall(request)
        if end:
            link.shutdown(socket.SHUT_WR)
        data = b""
        while more := link.recv(65_536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split(" ")[1]), headers, body


BAD_QUERIES = [
    ("subjects=log..x", 4409, "bad_subjects"),
    ("level=LOUD", 4409, "bad_level"),
    ("mode=fast", 4409, "bad_mode"),
    ("cursor=x", 4409, "bad_cursor"),
    ("since=x", 4409, "bad_since"),
    ("interval_ms=x", 4409, "bad_interval"),
    ("token=secret", 4400, "bad_query"),
    ("x=" + "a" * 4096, 4400, "bad_query"),
]


@pytest.mark.parametrize(("query", "code", "error"), BAD_QUERIES)
def test_a_browser_is_rejected_after_the_upgrade(relay: Relay, query: str, code: int, error: str) -> None:
    """A browser, which cannot see a status, is accepted and gets ``error``, ``bye`` and the close code."""

    async def check() -> None:
        async with connect(
            f"{relay.ws_url}?{query}",
            subprotocols=[Subprotocol("tickertape.v1")],
            proxy=None,
            ping_interval=None,
        ) as socket:
            first, second = json.loads(await socket.recv()), json.loads(await socket.recv())
            assert (first["type"], first["code"], first["retry"]) == ("error", error, False)
            assert (second["type"], second["code"]) == ("bye", code)
            with pytest.raises(ConnectionClosed) as caught:
                await socket.recv()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == code
            assert "secret" not in first["message"]

    run(check())


@pytest.mark.parametrize(("query", "code", "error"), BAD_QUERIES)
def test_programs_are_rejected_before_the_upgrade(relay: Relay, query: str, code: int, error: str) -> None:
    """Other clients are rejected over HTTP with the same code and message, in JSON."""
    status, headers, body = exchange(relay, upgrade(f"/ws?{query}"))
    received = json.loads(body)
    assert status == 400
    assert headers["content-type"] == "application/json"
    assert headers["content-length"] == str(len(body))
    assert set(received) == {"code", "message"}
    assert received["code"] == error
    assert code in (4400, 4409)


@pytest.mark.parametrize("target", ["/ws?subjects=log.\xff", "/ws?subjects=%ED%A0%80", "/ws?level=\xe9"])
def test_bytes_that_are_no_text_are_rejected(relay: Relay, target: str) -> None:
    """Raw bytes and lone surrogates in the URL are the client's error, not the relay's."""
    status, _, _ = exchange(relay, upgrade(target))
    assert status == 400


def test_foreign_subprotocols_alone_are_rejected(relay: Relay) -> None:
    """Foreign subprotocols alone are rejected; beside the relay's own they are ignored."""

    async def rejected(*names: str) -> int:
        with pytest.raises(InvalidStatus) as caught:
            async with connect(
                relay.ws_url, subprotocols=[Subprotocol(n) for n in names], proxy=None, ping_interval=None
            ):
                pass
        assert json.loads(caught.value.response.body or b"")["code"]
        return caught.value.response.status_code

    async def check() -> None:
        assert await rejected("graphql-ws") == 400
        assert await rejected("tickertape.v2", "soap") == 400
        async with connect(
            relay.ws_url,
            subprotocols=[Subprotocol("soap"), Subprotocol("tickertape.v1")],
            proxy=None,
            ping_interval=None,
        ) as socket:
            assert socket.subprotocol == "tickertape.v1"

    run(check())


def test_a_path_that_is_no_feed_is_not_found(relay: Relay) -> None:
    """An upgrade on another path is not found, and the message says where the feed is."""
    status, _, body = exchange(relay, upgrade("/feed"))
    assert status == 404
    assert "/ws" in json.loads(body)["message"]


def test_the_feed_without_an_upgrade_asks_for_one(relay: Relay) -> None:
    """Opening the feed's URL in a browser gets 426 and a hint."""
    status, headers, body = exchange(relay, b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert status == 426
    assert headers["upgrade"] == "websocket"
    assert json.loads(body)["code"] == "upgrade_required"


@pytest.mark.parametrize(
    "line",
    ["Sec-WebSocket-Version: 8", "Sec-WebSocket-Key: short"],
)
def test_a_broken_handshake_is_rejected(relay: Relay, line: str) -> None:
    """A malformed handshake is rejected with a 4xx status, in JSON."""
    name = line.partition(":")[0]
    kept = [part for part in upgrade("/ws").decode().split("\r\n") if not part.startswith(name)]
    request = "\r\n".join([*kept[:-2], line, "", ""]).encode()
    status, _, body = exchange(relay, request)
    assert status in (400, 426)
    assert json.loads(body)["message"]


async def close_code(relay: Relay, *frames: object) -> int:
    """Send something and return the close code; a list is sent in fragments."""
    async with connect(
        relay.ws_url, proxy=None, ping_interval=None, compression=None, max_size=None
    ) as socket:
        for _ in range(3):
            await socket.recv()
        for frame in frames:
            try:
                await socket.send(frame)  # type: ignore[arg-type]
            except ConnectionClosed:
                break
        while True:
            try:
                await asyncio.wait_for(socket.recv(), PATIENCE)
            except ConnectionClosed as error:
                # 1006 means that the relay sent no close frame, or that it was lost.
                return error.rcvd.code if error.rcvd is not None else 1006


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((b"binary",), 1003),
        (("x" * (MAX_MESSAGE_BYTES + 1),), 1009),
        ((["x" * 600_000, "x" * 600_000],), 1009),
        (("hello",), 4400),
        (('{"type":"shout"}',), 4400),
        (('{"type":"subscribe","level":"LOUD"}',), 4409),
        (('{"type":"ping","id":1}', "x"), 4400),
    ],
)
def test_misuse_has_its_close_code(relay: Relay, frames: tuple[object, ...], code: int) -> None:
    """Misuse is closed with its code, which arrives however large the message was."""
    assert run(close_code(relay, *frames)) == code


def raw_close_code(relay: Relay, *frames: bytes) -> int:
    """Send frames that no library would send; return the close code."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
        link.sendall(upgrade("/ws"))
        read_until(link, b'"type":"snapshot"')
        link.sendall(b"".join(frames))
        data = b""
        while more := link.recv(65_536):
            data += more
    at = data.index(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big")


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        ((masked(0x81, b"\xff\xfe"),), 1007),
        ((masked(0x01, b"\xe2\x82"), masked(0x80, b"\xff")), 1007),
        ((b"\x81\x02hi",), 1002),
        ((masked(0x83, b"x"),), 1002),
        ((masked(0xC1, b"x"),), 1002),
        ((masked(0x80, b"x"),), 1002),
        ((masked(0x02, b"x"),), 1003),
        ((masked(0x82, b"x"), masked(0x81, b'{"type":"ping"}')), 1003),
        ((masked(0x88, b"\x03\xe8"),), 1000),
    ],
    ids=[
        "bad UTF-8", "bad UTF-8 in fragments", "unmasked", "unknown opcode", "reserved bit",
        "continuation of nothing", "binary fragment", "text behind binary", "close",
    ],
)  # fmt: skip
def test_broken_frames_have_their_close_code(relay: Relay, frames: tuple[bytes, ...], code: int) -> None:
    """Malformed frames are closed with the code that RFC 6455 defines."""
    assert raw_close_code(relay, *frames) == code


def test_a_message_in_fragments_is_one_message(relay: Relay) -> None:
    """Fragments are joined, even if a character is split, with a ping between them."""
    text = '{"type":"ping","id":"é"}'.encode()
    cut = text.index("é".encode()) + 1
    with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
        link.sendall(upgrade("/ws"))
        read_until(link, b'"type":"snapshot"')
        for part in (masked(0x01, text[:cut]), masked(0x89, b"p"), masked(0x80, text[cut:])):
            link.sendall(part)
        data = read_until(link, '"type":"pong","id":"é"'.encode())
        assert b"\x8a\x01p" in data


def test_a_client_that_ends_in_good_order_is_answered(relay: Relay) -> None:
    """A proper close is answered and counted as such."""

    async def check() -> None:
        async with follow(relay.ws_url) as feed:
            await feed.socket.close(1000)
            assert feed.socket.close_code == 1000
            assert only(feed.messages, Bye) == []

    run(check())


def test_a_slow_request_head_is_cut_off(relay: Relay) -> None:
    """A client that sends nothing, or single bytes, is disconnected after a few seconds."""
    status, _, _ = exchange(relay, b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    assert status == 408


def test_a_large_request_head_is_cut_off(relay: Relay) -> None:
    """A large request head is rejected before it uses memory."""
    status, _, _ = exchange(relay, b"GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + b"a" * 100_000)
    assert status == 431
