"""Every kind of request head over sockets has one response on the main port, the ops port and the feed."""

import json
import socket
from collections.abc import Iterator
from itertools import product

import pytest

from tests.support.clients.attacker import Answer, answer_of, count, read_all
from tests.support.clients.feed_client import PATIENCE
from tests.support.clients.request_heads import ROWS, Destination, Row
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

MAIN = Destination("/health")
FEED = Destination("/ws", feed=True)
OPS = Destination("/livez")
DESTINATIONS = {"main port": MAIN, "feed": FEED, "ops port": OPS}


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run one relay for all of them, without limits per address, since most of these are errors."""
    with (
        NatsServer(tmp_path_factory.mktemp("nats")) as server,
        Relay(server.url, "--address-rate", "0") as running,
    ):
        yield running


def ask(relay: Relay, destination: Destination, *pieces: bytes) -> Answer:
    """Send a head and read its response: to the end, or to the end of the head of a 101."""
    host, port = relay.host_port
    if destination is OPS:
        port = int(relay.ops_url.rpartition(":")[2])
    with socket.create_connection((host, port), timeout=PATIENCE) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        try:
            for piece in pieces:
                link.sendall(piece)
        except ConnectionError:
            pass  # it was answered before the connection closed
        while not (data.startswith(b"HTTP/1.1 101 ") and b"\r\n\r\n" in data):
            try:
                more = link.recv(65_536)
            except ConnectionError:
                break
            if not more:
                break
            data += more
    return answer_of(data)


def check(answer: Answer, row: Row, destination: Destination) -> None:
    """Compare a response with its row."""
    assert answer.status == row.status(destination)
    expected = row.expected(destination)
    assert {name: answer.headers.get(name) for name in expected} == expected
    if answer.status >= 400 and row.method != "HEAD":
        assert answer.headers["content-type"] == "application/json"
        received = json.loads(answer.body)
        assert set(received) == {"code", "message"}
        assert received["code"]
        assert received["message"]


@pytest.mark.parametrize(("where", "name"), list(product(DESTINATIONS, ROWS)))
def test_a_head_has_its_answer(relay: Relay, where: str, name: str) -> None:
    """The response has the expected status, a reason in JSON, and the headers of that status."""
    row, destination = ROWS[name], DESTINATIONS[where]
    check(ask(relay, destination, row.head(destination)), row, destination)


@pytest.mark.parametrize("where", DESTINATIONS)
def test_what_is_too_large_is_counted(relay: Relay, where: str) -> None:
    """An oversized head is counted on the main port; the ops port has no limits to count."""
    destination = DESTINATIONS[where]
    before = count(relay, "rejected_total", limit="head_bytes")
    assert ask(relay, destination, ROWS["a byte more"].head(destination)).status == 431
    after = count(relay, "rejected_total", limit="head_bytes")
    assert after == before + (0 if destination is OPS else 1)


@pytest.mark.parametrize("where", DESTINATIONS)
def test_a_head_that_does_not_end_has_five_seconds(relay: Relay, where: str) -> None:
    """An incomplete head is 408 in JSON after five seconds, on every path, and counted on the main port."""
    destination = DESTINATIONS[where]
    before = count(relay, "rejected_total", limit="head_time")
    answer = ask(relay, destination, ROWS["ordinary"].head(destination)[:-2])
    assert answer.status == 408
    assert json.loads(answer.body)["message"] == "request timeout"
    after = count(relay, "rejected_total", limit="head_time")
    assert after == before + (0 if destination is OPS else 1)


def test_a_request_behind_an_upgrade_to_another_protocol_is_answered(relay: Relay) -> None:
    """An upgrade to another protocol is ignored, in one read or in two."""
    head = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    last = ROWS["ordinary"].head(MAIN)
    for pieces in ([head + last], [head, last], [head[:-1], b"\n" + last]):
        with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
            for piece in pieces:
                link.sendall(piece)
            assert read_all(link).count(b"HTTP/1.1 200 ") == 2


ERRORS = [
    ("/events?limit=0", 400),
    ("/events?subject=log.error.>", 400),
    ("/nowhere", 404),
    ("/assets/nowhere.js", 404),
    ("/events/nowhere", 404),
    ("/ws", 426),
]


@pytest.mark.parametrize(("target", "status"), ERRORS)
def test_page_errors_are_json(relay: Relay, target: str, status: int) -> None:
    """Errors of pages are JSON, never plain text."""
    answer = ask(relay, MAIN, ROWS["ordinary"].head(Destination(target)))
    check(answer, Row(status), MAIN)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("target", ["/health", "/assets/app.js", "/ws", "/"])
def test_what_a_page_does_not_take_is_405(relay: Relay, target: str) -> None:
    """An unsupported method is 405 with the supported ones."""
    answer = ask(relay, MAIN, Row(405, method="OPTIONS").head(Destination(target)))
    check(answer, Row(405, headers={"allow": "GET, HEAD"}), MAIN)
