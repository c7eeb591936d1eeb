"""A client that sends bad requests, directly or through a shipped proxy, uses up only its own limits."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.clients import forge
from tests.support.clients.attacker import Answer, answer_of, bearer, claims, count, get, upgrade
from tests.support.patience import PATIENCE
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.shipped_proxy import proxy

RATE: Final = 2.0
"""Requests per second of one client: a burst of 20, of which a rejected one takes ten or eleven."""

TOTAL_RATE: Final = 30.0
"""Connections per second of all clients: a burst of 300, of which one client can use only a few."""

FLOOD: Final = 40
"""Bad requests of one client and kind; those of all kinds are more than the burst of all clients."""

JWT: Final = {
    "TICKERTAPE_AUTH": "jwt",
    "TICKERTAPE_JWT_ALGORITHM": "HS256",
    "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode(),
    "TICKERTAPE_ADDRESS_RATE": str(RATE),
    "TICKERTAPE_CONNECTION_RATE": str(TOTAL_RATE),
}
FRONTS: Final = ("direct", "haproxy", "nginx")
FOREIGN: Final = "Origin: https://evil.example"
BAD: Final = {
    "a bad token": upgrade("/ws", bearer("x.y.z")),
    "a bad token in a query": upgrade("/ws?token=x.y.z"),
    "a foreign page": upgrade("/ws", FOREIGN),
    "a foreign page that offers the subprotocol": upgrade(
        "/ws", FOREIGN, "Sec-WebSocket-Protocol: tickertape.v1"
    ),
    "a foreign page and history": get("/events", FOREIGN),
    "a foreign page and health": get("/health", FOREIGN),
    "a preflight of a foreign page": get("/events", FOREIGN, method="OPTIONS"),
    "history without a token": get("/events"),
    "history with a bad token": get("/events", bearer("x.y.z")),
    "a bad query": get("/events?limit=0"),
    "an unknown page": get("/nowhere"),
    "an unknown feed": upgrade("/nowhere"),
    "no upgrade": get("/ws"),
    "no key": upgrade("/ws").replace(b"Sec-WebSocket-Key", b"X"),
    "another subprotocol": upgrade("/ws", "Sec-WebSocket-Protocol: soap"),
    "another method": get("/health", method="DELETE"),
    "a control character": get("/health", "X: a\x01b"),
    "a fragment": get("/health#x"),
}
_sources = iter(f"127.0.{5 + number // 250}.{1 + number % 250}" for number in range(10_000))


@pytest.fixture(scope="module")
def relay(nats: NatsServer, prefix: str) -> Iterator[Relay]:
    """Run a relay with low rates behind trusted proxies on this host."""
    with Relay(
        nats.url, TICKERTAPE_SUBJECT_PREFIX=prefix, TICKERTAPE_TRUSTED_PROXIES="127.0.0.1", **JWT
    ) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a valid token."""
    return forge.token("HS256", claims(sub="honest"))


@pytest.fixture(scope="module", params=FRONTS)
def port(
    request: pytest.FixtureRequest, relay: Relay, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """Return the port that clients connect to."""
    with front(request.param, tmp_path_factory.mktemp(request.param), relay) as found:
        yield found


@contextmanager
def front(kind: str, folder: Path, relay: Relay) -> Iterator[int]:
    """Yield the port of the relay, or of a proxy before it."""
    if kind == "direct":
        yield relay.host_port[1]
        return
    with proxy(kind, folder, (relay, relay)) as found:
        yield found


def ask(link: socket.socket, request: bytes) -> Answer:
    """Send a request; return its response."""
    link.sendall(request)
    data = b""
    while not _is_complete(data):
        more = link.recv(65_536)
        assert more, data
        data += more
    return answer_of(data)


def _is_complete(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return bool(end) and len(body) >= (int(length[1]) if length else 0)


def exchange(port: int, request: bytes, source: str) -> Answer:
    """Send a request on a new socket; return its response."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE, (source, 0)) as link:
        return ask(link, request)


def flood(send: Callable[[], int], kind: str = "") -> None:
    """Send bad requests; check that the client's own rate rejects them after the first ones."""
    began = time.monotonic()
    statuses = [send() for _ in range(FLOOD)]
    assert set(statuses) - {429} <= {400, 401, 403, 404, 405, 426}, kind
    admitted = FLOOD - statuses.count(429)
    assert admitted <= 2 + (time.monotonic() - began) * RATE / 10 + 1, kind


def test_a_flood_uses_up_the_rate_of_its_client(relay: Relay, port: int, honest_token: str) -> None:
    """Each bad request counts ten times against its client, and a client with a good token still connects."""
    before = count(relay, "rejected_total", limit="connection_rate")
    good = upgrade("/ws", bearer(honest_token))
    for kind, request in BAD.items():
        source = next(_sources)
        first = exchange(port, request, source)
        assert first.status in (400, 401, 403, 404, 405, 426), kind
        if first.headers["content-type"] == "application/json":  # otherwise the proxy rejects it itself
            for _ in range(5):
                flood(lambda: exchange(port, request, source).status, kind)  # noqa: B023
                # On a busy machine, a request may be admitted again by the time it is read.
                if (status := exchange(port, good, source).status) == 429:
                    break
            assert status == 429, kind
    assert exchange(port, good, next(_sources)).status == 101
    assert count(relay, "rejected_total", limit="connection_rate") == before


def test_clients_of_one_socket_are_charged_separately(relay: Relay, honest_token: str) -> None:
    """On a socket that a proxy reuses, no rejection or malformed head is charged to another client."""
    attacker = f"X-Forwarded-For: {next(_sources)}"
    for kind in ("foreign", "control", "framed", "spaces", "simple"):
        victim = f"X-Forwarded-For: {next(_sources)}"
        bad = {
            "foreign": get("/events", FOREIGN, attacker),
            "control": get("/health", "X: a\x01b", attacker),
            "framed": get("/health", victim, "X: a\x01b", attacker),
            "spaces": get("/health", victim, attacker).replace(b"GET ", b"GET  "),
            "simple": b"GET /\r\n\r\n",
        }[kind]
        health = get("/health", victim).replace(b"Connection: close\r\n", b"")
        for _ in range(8):
            with socket.create_connection(relay.host_port, PATIENCE, ("127.0.0.1", 0)) as link:
                assert ask(link, health).status == 200, f"{kind}: the victim is not charged"
                assert ask(link, bad).status in (400, 403, 429), kind


def test_workers_share_what_is_charged(nats: NatsServer, tmp_path: Path, honest_token: str) -> None:
    """The same holds for several workers behind a proxy."""
    env = {"TICKERTAPE_SUBJECT_PREFIX": "charged", "TICKERTAPE_TRUSTED_PROXIES": "127.0.0.1", **JWT}
    with Relay(nats.url, "--workers", "2", **env) as workers, front("haproxy", tmp_path, workers) as port:
        source = next(_sources)
        flood(lambda: exchange(port, BAD["a bad token"], source).status)
        assert exchange(port, upgrade("/ws", bearer(honest_token)), next(_sources)).status == 101


@pytest.mark.parametrize(
    "kind", ["a bad token", "a foreign page", "a foreign page and history", "an unknown feed"]
)
def test_a_mounted_feed_charges_its_clients(nats: NatsServer, kind: str, honest_token: str) -> None:
    """The same holds for a mounted feed, whose sockets belong to its host."""
    proxied = "127.0.0.9"
    mounts: dict[str, dict[str, Any]] = {
        "/feed": {"nats_url": nats.url, "subject_prefix": f"mounted{len(kind)}"}
    }
    env: dict[str, Any] = {**JWT, "TICKERTAPE_TRUSTED_PROXIES": proxied}
    with Host(mounts, env=env) as host:
        host.until_ready("/feed")
        port = int(host.url().rpartition(":")[2])

        def send(request: bytes) -> int:
            request = request.replace(b" /", b" /feed/", 1).replace(b"/feed//", b"/feed/")
            return exchange(port, request, proxied).status

        attacker, other = (f"\r\nX-Forwarded-For: {next(_sources)}\r\n\r\n".encode() for _ in range(2))
        flood(lambda: send(BAD[kind].replace(b"\r\n\r\n", attacker)))
        assert send(upgrade("/ws", bearer(honest_token)).replace(b"\r\n\r\n", other)) == 101
