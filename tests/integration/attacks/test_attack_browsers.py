"""Pages of other sites in a user's browser: similar origins, rebound names, CORS, and our own page."""

import contextlib
import re
import socket
from collections.abc import Iterator

import pytest
from websockets.exceptions import InvalidStatus

from tests.integration.attacks.conftest import Deploy
from tests.support.clients import forge
from tests.support.clients.attacker import (
    Answer,
    answer_of,
    bearer,
    browser,
    claims,
    exchange,
    get,
    raw_at,
    until,
    upgrade,
)
from tests.support.clients.feed_client import PATIENCE, run
from tests.support.programs.deployment import NOT_NGINX, SERVED, Deployment
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer
from tickertape.net.metrics_port import MAX_CONNECTIONS

EXACT = "https://app.example.com"
BELOW = "https://*.dash.example.org"


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> Iterator[Deployment]:
    """Run a relay with tokens and allowed origins."""
    with deploy(allowed_origins=f"{EXACT}, {BELOW}", **forge.RELAY_SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def open_relay(deploy: Deploy) -> Iterator[Deployment]:
    """Run a relay on loopback without tokens: everyone who can reach it is admitted, so host names matter."""
    with deploy(allowed_origins=EXACT) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a valid token."""
    return forge.token("HS256", claims())


def rejected(answer: Answer) -> bool:
    """Return whether a response is the rejection of a page, without CORS headers for scripts."""
    allowed = [name for name in answer.headers if name.startswith("access-control-")]
    return (answer.status, answer.code, allowed) == (403, "forbidden", [])


FOREIGN = [
    "null", "https://evil.com", "https://app.example.com.evil.com", "https://evilapp.example.com",
    "https://app.example.com:8443", "http://app.example.com", "https://example.com", "https://x.app.example.com",
    "https://app.example.com@evil.com", "https://evil.com#app.example.com", "https://evil.com/app.example.com",
    "https://app.example.com\\.evil.com", "https://app.example.com%2eevil.com", "https://app-example.com",
    "https://a.b.dash.example.org", "https://dash.example.org", "https://evildash.example.org",
    "https://.dash.example.org", "https://*.dash.example.org", "https://a.dash.example.org.evil.com",
    "http://a.dash.example.org", "https://a.dash.example.org:444", "https://-.dash.example.org",
    "wss://app.example.com", "file://", "chrome-extension://app.example.com", "app.example.com", "",
]  # fmt: skip


@pytest.mark.parametrize("origin", FOREIGN)
def test_a_page_of_another_site_is_rejected(relay: Deployment, origin: str, honest_token: str) -> None:
    """A page of another site gets 403 before the upgrade, whatever it offers and however valid its user's
    token is.
    """
    header = f"Origin: {origin}"
    protocols = f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{honest_token}"
    assert rejected(exchange(relay, upgrade("/ws", header, protocols)))
    assert rejected(exchange(relay, upgrade("/ws", header, bearer(honest_token))))
    assert rejected(exchange(relay, get("/events", header, bearer(honest_token))))
    assert rejected(exchange(relay, get("/", header)))
    assert rejected(exchange(relay, get("/events", header, method="OPTIONS")))


@pytest.mark.deployments(*SERVED)
def test_a_second_origin_does_not_help(relay: Deployment, honest_token: str) -> None:
    """All origins in a request must be allowed."""
    for pair in ((EXACT, "https://evil.com"), ("https://evil.com", EXACT)):
        headers = [f"Origin: {one}" for one in pair]
        assert rejected(exchange(relay, upgrade("/ws", *headers, bearer(honest_token))))
        assert rejected(exchange(relay, get("/events", *headers, bearer(honest_token))))


def test_a_browser_of_another_site_sees_a_failed_handshake(relay: Deployment, honest_token: str) -> None:
    """A browser on another site sees only a failed handshake, and no close code."""
    with pytest.raises(InvalidStatus) as caught:
        run(browser(relay, token=honest_token, origin="https://evil.com"))
    assert caught.value.response.status_code == 403


@pytest.mark.parametrize(
    "origin", [EXACT, "https://APP.example.com", f"{EXACT}:443", "https://a.dash.example.org"]
)
def test_a_page_of_the_allow_list_connects(relay: Deployment, origin: str, honest_token: str) -> None:
    """An allowed page connects to feed and history with its token; case and default port are ignored."""
    protocols = f"Sec-WebSocket-Protocol: tickertape.v1, bearer.{honest_token}"
    data = until(relay, upgrade("/ws", f"Origin: {origin}", protocols), b'"type":"snapshot"')
    assert data.startswith(b"HTTP/1.1 101 ")
    head = data.partition(b"\r\n\r\n")[0]
    assert b"sec-websocket-protocol: tickertape.v1" in head.lower()
    assert honest_token.encode() not in head
    answer = exchange(relay, get("/events", f"Origin: {origin}", bearer(honest_token)))
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.parametrize("host", ["relay.example.net", "relay.example.net:8080", "127.0.0.1", "[::1]:8080"])
def test_the_relays_own_page_connects(relay: Deployment, host: str, honest_token: str) -> None:
    """The relay's own page connects under any name; another port or another name is another site."""
    # A relay without TLS may be behind a proxy with TLS.
    for scheme in ("https",) if relay.context else ("http", "https"):
        request = upgrade("/ws", f"Origin: {scheme}://{host}", bearer(honest_token), host=host)
        assert until(relay, request, b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    for origin in ("http://relay.example.net:9999", f"http://{host}.evil.com", f"http://x.{host}"):
        assert rejected(exchange(relay, upgrade("/ws", f"Origin: {origin}", bearer(honest_token), host=host)))


@pytest.mark.deployments(*SERVED)
def test_a_preflight_allows_what_is_needed(relay: Deployment) -> None:
    """A preflight allows GET with a token and without cookies, for allowed pages only."""
    ask = ("Access-Control-Request-Method: GET", "Access-Control-Request-Headers: authorization")
    answer = exchange(relay, get("/events", f"Origin: {EXACT}", *ask, method="OPTIONS"))
    assert answer.status == 204
    received = {name: value for name, value in answer.headers.items() if name.startswith("access-control-")}
    assert received == {
        "access-control-allow-origin": EXACT,
        "access-control-allow-methods": "GET",
        "access-control-allow-headers": "authorization",
        "access-control-max-age": "600",
    }
    assert answer.headers["vary"] == "Origin"
    scheme = relay.url.partition(":")[0]
    own = exchange(relay, get("/events", f"Origin: {scheme}://127.0.0.1", *ask, method="OPTIONS"))
    assert own.status == 204
    assert "access-control-allow-origin" not in own.headers
    # An allowed page can also read a rejection, so that it can show the reason.
    bad = exchange(relay, get("/events", f"Origin: {EXACT}", bearer("x.y.z")))
    assert (bad.status, bad.headers["access-control-allow-origin"]) == (401, EXACT)
    for target in ("/health", "/"):
        answer = exchange(relay, get(target, f"Origin: {EXACT}"))
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.deployments(*SERVED)
@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:8080", "127.0.0.1.evil.com", "localhost.evil.com", "x.y"]
)
def test_a_name_that_was_rebound_gets_nothing(open_relay: Deployment, host: str) -> None:
    """Without tokens, a page whose name resolves to 127.0.0.1 would be same-origin; it gets 403 for
    everything.
    """
    for target in ("/", "/events", "/health", "/assets/app.js", "/ws"):
        assert rejected(exchange(open_relay, get(target, f"Origin: http://{host}", host=host)))
        assert rejected(exchange(open_relay, get(target, host=host)))
    for headers in ([f"Origin: http://{host}"], [], ["Sec-WebSocket-Protocol: tickertape.v1"]):
        assert rejected(exchange(open_relay, upgrade("/ws", *headers, host=host)))


@pytest.mark.deployments(*SERVED)
@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost:8080", "[::1]", "relay", "app.localhost", "app.example.com"]
)
def test_our_names_get_in_without_a_token(open_relay: Deployment, host: str) -> None:
    """Loopback addresses, names without a dot and allowed names are accepted."""
    assert exchange(open_relay, get("/", host=host)).status == 200
    assert until(open_relay, upgrade("/ws", host=host), b'"type":"snapshot"')


@pytest.mark.deployments(*NOT_NGINX)
@pytest.mark.parametrize(
    "host",
    [
        "a!.evil.com",
        "a'b.evil.com:8080",
        "evil.com, 127.0.0.1",
        "127.0.0.1@evil.com",
        "evil.com/",
        "x;y.evil.com",
    ],
)
def test_a_name_that_cannot_be_read_gets_nothing(open_relay: Deployment, host: str) -> None:
    """A name with characters beyond those of host names can be rebound as well, and is rejected."""
    for target in ("/", "/events", "/ws"):
        assert rejected(exchange(open_relay, get(target, host=host)))
    for headers in ([], [f"Origin: http://{host}"], ["Origin: http://127.0.0.1"]):
        assert rejected(exchange(open_relay, upgrade("/ws", *headers, host=host)))


@pytest.mark.deployments(*NOT_NGINX)
def test_a_program_without_a_host_gets_in(open_relay: Deployment) -> None:
    """HTTP/1.0 has no Host header, and browsers do not use it."""
    assert exchange(open_relay, b"GET /events HTTP/1.0\r\n\r\n").status == 200


@pytest.mark.deployments(*SERVED)
def test_the_page_executes_only_its_own_files(relay: Deployment) -> None:
    """The page's policy allows nothing inline, and it has no inline script, style or handler."""
    answer = exchange(relay, get("/"))
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    page = answer.body.decode()
    assert re.findall(r"<script(?![^>]*\ssrc=\"/assets/)[^>]*>", page) == []
    assert re.findall(r"<script[^>]*>\s*[^<\s]", page) == []
    assert not re.search(
        r"<style|\sstyle\s*=|\son[a-z]+\s*=|javascript:|<base|<iframe|<object", page, re.IGNORECASE
    )
    assert not re.search(r"(?:src|href)=\"(?!/assets/|#)", page)


@pytest.mark.deployments(*SERVED)
def test_no_script_of_the_page_makes_markup_of_text(relay: Deployment) -> None:
    """No script of the page writes HTML or evaluates what it receives."""
    page = exchange(relay, get("/")).body.decode()
    expected = set(re.findall(r'src="(/assets/[^"]+\.js)"', page))
    assert "/assets/built/app.js" in expected
    for path in (*expected, "/assets/vendor/uPlot.iife.min.js"):
        script = exchange(relay, get(path)).body.decode()
        sinks = r"\b(innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval|new Function|srcdoc)\b"
        assert not re.search(sinks, script), path


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_rebound_name_does_not_reach_the_ops_port(nats: NatsServer, workers: str) -> None:
    """A page whose own domain resolves to the ops port gets 403 for everything, and Prometheus does not."""
    env = {"TICKERTAPE_SUBJECT_PREFIX": "ops", "TICKERTAPE_OPS_ALLOWED_HOSTS": "*.ticks.svc.cluster.local"}
    with Relay(nats.url, "--workers", workers, **env) as running:
        port = int(running.ops_url.rpartition(":")[2])

        def status(target: str, host: str) -> int:
            return answer_of(raw_at(port, get(target, host=host))).status

        for target in ("/metrics", "/livez", "/readyz", "/statusz", "/nowhere"):
            for host in (
                "evil.example",
                f"evil.example:{port}",
                "127.0.0.1.evil.example",
                "ticks.svc.cluster.local",
            ):
                assert status(target, host) == 403
            for host in (
                f"127.0.0.1:{port}",
                "[::1]",
                "localhost",
                "relay-1:9464",
                "a.ticks.svc.cluster.local:9464",
            ):
                assert status(target, host) == (404 if target == "/nowhere" else 200)
        held = [socket.create_connection(("127.0.0.1", port), PATIENCE) for _ in range(100)]
        # A scrape succeeds while another program holds connections, of which only the newest stay open.
        assert status("/metrics", "127.0.0.1") == 200
        for link in held[: -MAX_CONNECTIONS - 1]:
            with link, contextlib.suppress(ConnectionResetError):
                assert link.recv(1) == b""  # not the 408 that others get later
        for link in held[-MAX_CONNECTIONS - 1 :]:
            link.close()
        # haproxy's checks have no Host.
        assert answer_of(raw_at(port, b"GET /readyz HTTP/1.0\r\n\r\n")).status == 200
