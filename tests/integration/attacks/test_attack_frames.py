"""Messages that cost more than their size: compression bombs, floods of patterns, deep nesting, before a
token.
"""

import contextlib
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickertape.contracts.messages import MAX_MESSAGE_BYTES

from tests.integration.attacks.conftest import Deploy
from tests.support.clients import forge
from tests.support.clients.attacker import SOURCE, browser, claims, masked, read_all, read_until, upgrade
from tests.support.clients.feed_client import run
from tests.support.programs.deployment import SERVED, Deployment

MEGABYTE = 1024 * 1024
CAPACITY = 20 * MEGABYTE
"""Bytes by which an attack may increase the relay's peak memory."""


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> Iterator[Deployment]:
    """Run a relay that requires a token, so that there is an unauthenticated phase."""
    with deploy(**forge.RELAY_SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a valid token."""
    return forge.token("HS256", claims(sub="honest"))


def good() -> str:
    """Return an attacker's token: valid, with a small grant."""
    return forge.token("HS256", claims(tickertape={"subjects": ["log.info.nothing"]}))


def in_fragments(first: int, payload: bytes, count: int) -> bytes:
    """Return the same message in several frames."""
    step = len(payload) // count + 1
    parts = [payload[at : at + step] for at in range(0, len(payload), step)]
    frames = [masked(first if n == 0 else 0, part) for n, part in enumerate(parts)]
    return b"".join(frames[:-1]) + masked(0x80 | (first if len(parts) == 1 else 0), parts[-1])


def close_code(relay: Deployment, frames: bytes, *headers: str, mark: bytes) -> int:
    """Connect, wait for a mark, send frames and read to the end; return the close code, 1006 without one."""
    with relay.connect(SOURCE) as link:
        link.sendall(upgrade("/ws", *headers))
        read_until(link, mark)
        with contextlib.suppress(ConnectionError):
            link.sendall(frames)
        data = read_all(link)
    at = data.rfind(b"\x88")
    return int.from_bytes(data[at + 2 : at + 4], "big") if at >= 0 else 1006


def peak(relay: Deployment) -> int:
    """Return the peak memory of the relay's processes in bytes."""
    status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in relay.pids)
    return sum(int(size) * 1024 for size in re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.M))


def deflated(size: int) -> bytes:
    """Return a number of zeros as a compressed message, a thousandth of that on the wire."""
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(MEGABYTE)
    data = b"".join(made.compress(block) for _ in range(size // MEGABYTE))
    return (data + made.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover"


@pytest.mark.deployments(*SERVED)
@pytest.mark.parametrize("fragments", [1, 16], ids=["one frame", "fragments"])
@pytest.mark.parametrize("waiting", [False, True], ids=["with a token", "without"])
def test_a_compressed_bomb_is_not_unpacked(relay: Deployment, fragments: int, waiting: bool) -> None:
    """64 MiB of zeros, 64 KiB on the wire, are closed with 1009 without being decompressed."""
    bomb = in_fragments(0x41, deflated(64 * MEGABYTE), fragments)
    assert len(bomb) < 100_000
    before = peak(relay)
    if waiting:
        code = close_code(relay, bomb, DEFLATE, mark=b"permessage-deflate")
    else:
        header = f"Authorization: Bearer {good()}"
        code = close_code(relay, bomb, DEFLATE, header, mark=b"permessage-deflate")
    assert code == 1009
    assert peak(relay) - before < CAPACITY


def patterns(count: int, width: int) -> str:
    """Return a ``subscribe`` with a number of patterns."""
    return json.dumps({"type": "subscribe", "subjects": [f"{n:0{width}d}" for n in range(count)]})


@pytest.mark.deployments(*SERVED)
def test_a_million_patterns_are_too_much(relay: Deployment) -> None:
    """A million patterns are 1009 before the message is complete; those that fit in a message are 4409,
    cheaply.
    """
    before = peak(relay)
    inside = run(browser(relay, patterns(1_000_000, 6), token=good()))
    assert inside.close == 1009
    fitting = patterns(100_000, 6)
    assert MAX_MESSAGE_BYTES * 0.9 < len(fitting) <= MAX_MESSAGE_BYTES
    inside = run(browser(relay, fitting, token=good()))
    assert (inside.error, inside.close) == ("bad_subjects", 4409)
    assert len(inside.messages[-1]["reason"]) < 1000
    assert peak(relay) - before < CAPACITY


@pytest.mark.deployments(*SERVED)
def test_an_unauthenticated_client_has_32_kib(relay: Deployment) -> None:
    """More than 32 KiB before the token is 1009 in any framing; the largest possible token fits."""
    for message in (
        patterns(20_000, 6),
        "x" * 33 * 1024,
        json.dumps({"type": "auth", "token": "x" * 40_000}),
    ):
        assert run(browser(relay, message)).close == 1009
    large = json.dumps({"type": "auth", "token": "x" * 16_384})
    inside = run(browser(relay, large))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "unauthorized", 4401)
    frames = in_fragments(0x01, b"x" * 40_000, 8)
    assert close_code(relay, frames, mark=b"\r\n\r\n") == 1009


NESTS = {
    "arrays": "[" * 200_000,
    "closed arrays": "[" * 100_000 + "]" * 100_000,
    "objects": '{"a":' * 100_000,
    "inside a field": '{"type":"subscribe","subjects":' + "[" * 5_000 + "]" * 5_000 + "}",
    "inside another field": '{"type":"ping","x":' + "[" * 5_000 + "]" * 5_000 + "}",
    "a long number": '{"type":"ping","id":' + "9" * 100_000 + "}",
    "a long exponent": '{"type":"ping","id":1e' + "9" * 1000 + "}",
    "a long key": '{"' + "a" * 100_000 + '":1}',
    "many keys": json.dumps({f"k{n}": 0 for n in range(50_000)}),
    "the same key": "{" + ",".join('"type":"ping"' for _ in range(50_000)) + ",}",
    "a long type": json.dumps({"type": "x" * 500_000}),
    "a list as type": '{"type":["ping"]}',
    "null": "null",
    "nothing": "",
    "a lone surrogate": '{"type":"\\ud800"}',
    "a NUL": '{"type":"ping\0"}',
    "a token that is an object": '{"type":"auth","token":{"a":1}}',
    "subjects that are an object": '{"type":"subscribe","subjects":{"log.>":1}}',
    "an interval of the far future": '{"type":"subscribe","interval_ms":1e30}',
}


@pytest.mark.parametrize("name", NESTS)
def test_an_invalid_message_ends_only_its_session(relay: Deployment, name: str) -> None:
    """An invalid message is closed with 4400 and a short reason, and affects no other session."""
    inside = run(browser(relay, NESTS[name], token=good()))
    assert inside.close == 4400
    assert inside.error in ("bad_json", "bad_message", "unknown_type")
    assert len(inside.messages[-1]["reason"]) < 500


def test_a_sequence_beyond_all_is_a_bad_cursor(relay: Deployment) -> None:
    """An impossible sequence is 4409; a possible one is looked up without overflow."""
    for value in ("e-99999999999999999999", "e--1", "e-1.5", "e-0x10", "-" * 1000, "\u0661-\u0661"):
        message = {"type": "subscribe", "cursor": value}
        inside = run(browser(relay, message, token=good()))
        assert (inside.error, inside.close) == ("bad_cursor", 4409)
    for field, value in (
        ("since", "9999999999999d"),
        ("since", "0001-01-01T00:00:00Z"),
        ("since", "9" * 400),
    ):
        inside = run(browser(relay, {"type": "subscribe", field: value}, {"type": "nonsense"}, token=good()))
        assert inside.close in (4400, 4409)
    assert not any("internal error" in line for line in relay.output)
