"""Pages that the two ports serve besides the feed."""

import json
import re
import socket
from collections.abc import Iterator
from email.message import Message
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text
from tickertape.contracts.cursors import parse_cursor
from tickertape.relay.endpoints.routes import DASHBOARD

from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run, status
from tests.support.paths import ROOT
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

PROMISED = {
    "connections": "gauge",
    "events_received": "counter",
    "events_rejected": "counter",
    "events_delivered": "counter",
    "events_dropped": "counter",
    "messages_sent": "counter",
    "bytes_sent": "counter",
    "delivery_delay_seconds": "histogram",
    "event_age_seconds": "histogram",
    "event_age_outliers": "counter",
    "internal_errors": "counter",
    "feeds": "gauge",
    "clients_behind": "gauge",
    "log_events": "gauge",
    "log_bytes": "gauge",
    "ingest_lag_events": "gauge",
    "resumes": "counter",
    "auth_failures": "counter",
    "nats_connected": "gauge",
    "disconnects": "counter",
}
"""Names and types that the protocol promises."""

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


@pytest.fixture(scope="module")
def relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """Run a relay that has delivered a few events to a connected client."""

    async def use(running: Relay) -> None:
        async with jetstream(running.nats_url) as js, follow(running.ws_url) as feed:
            for number in range(5):
                await publish(js, line(f"{number}", "WARN"))
            await publish(js, status("a"))
            await js.publish("log.info.x", b"nonsense")
            await publish(js, line("last"))
            await feed.events(7)

    with NatsServer(tmp_path_factory.mktemp("nats")) as server, Relay(server.url) as running:
        run(use(running))
        yield running


def get(url: str, body: bytes | None = None, **headers: str) -> tuple[int, Message, bytes]:
    """Request a page; return status, headers and body."""
    try:
        with urlopen(Request(url, body, headers), timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def raw_get(relay: Relay, target: str) -> tuple[int, bytes]:
    """Request exactly this target, which a library would normalize; return status and response."""
    with socket.create_connection(relay.host_port, timeout=PATIENCE) as link:
        link.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode("latin-1"))
        data = b""
        while more := link.recv(65_536):
            data += more
    return int(data.split(b" ")[1]), data


def test_the_dashboard_and_its_files_are_served(relay: Relay) -> None:
    """Every file that the dashboard refers to is served."""
    code, headers, body = get(relay.url + "/")
    assert (code, headers.get_content_type()) == (200, "text/html")
    expected = set(re.findall(r'(?:src|href)="(/[^"#]+)"', body.decode()))
    assert expected
    seen: set[str] = set()
    while expected - seen:
        path = (expected - seen).pop()
        seen.add(path)
        code, headers, body = get(relay.url + path)
        assert code == 200, path
        if path.endswith(".js"):
            assert headers.get_content_type() in ("text/javascript", "application/javascript")
            base = path.rpartition("/")[0]
            imports = re.findall(r'^import [^"]*"\./([^"]+)"', body.decode(), re.MULTILINE)
            expected |= {f"{base}/{name}" for name in imports}


@pytest.mark.parametrize(
    ("name", "content_type"),
    [("uPlot.iife.min.js", "javascript"), ("uPlot.min.css", "text/css"), ("uPlot.LICENSE.txt", "text/plain")],
)
def test_what_the_page_uses_of_others_is_served(relay: Relay, name: str, content_type: str) -> None:
    """Third-party files are served with their licence, and without a directory listing."""
    code, headers, body = get(f"{relay.url}/assets/vendor/{name}")
    assert (code, body) == (200, (DASHBOARD / "vendor" / name).read_bytes())
    assert content_type in headers.get_content_type()
    assert get(f"{relay.url}/assets/vendor/")[0] == 404


@pytest.mark.parametrize("path", ["/", "/health", "/ws", "/assets/app.js", "/nowhere", "/assets/nowhere.js"])
def test_every_answer_carries_the_security_headers(relay: Relay, path: str) -> None:
    """Every response, including errors, has the security headers."""
    _, headers, _ = get(relay.url + path)
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    is_file = path in ("/", "/assets/app.js")
    assert headers.get_all("cache-control") == ["no-cache" if is_file else "no-store"]
    assert headers["strict-transport-security"] is None, "only with a certificate"
    assert headers["server"] is None


@pytest.mark.parametrize("headers", [{}, {"Origin": "https://evil.example"}, {"Authorization": "Bearer x"}])
def test_history_is_never_cached(relay: Relay, headers: dict[str, str]) -> None:
    """What depends on a token, or on an origin, is stored by no cache, whether it is granted or rejected."""
    for query in ("", "?limit=0", "?since=earliest"):
        answer = get(f"{relay.url}/events{query}", None, **headers)[1]
        assert answer.get_all("cache-control") == ["no-store"]


@pytest.mark.parametrize(
    "target",
    [
        "/assets/../config.py",
        "/assets/../../pyproject.toml",
        "/assets/..%2f..%2fpyproject.toml",
        "/assets/%2e%2e/%2e%2e/pyproject.toml",
        "/assets/..\\..\\pyproject.toml",
        "/assets//etc/passwd",
        "/assets/%2fetc%2fpasswd",
        "//etc/passwd",
        "/assets/app.js%00.html",
        "/assets/",
        "/assets",
    ],
)
def test_nothing_else_is_served(relay: Relay, target: str) -> None:
    """No path leads out of the dashboard's folder, and there is no directory listing."""
    code, answer = raw_get(relay, target)
    assert code in (307, 400, 404, 405)
    assert b"[project]" not in answer
    assert b"root:" not in answer
    assert b"class ServeSettings" not in answer


@pytest.mark.parametrize("path", ["/nowhere", "/metrics", "/statusz", "/docs", "/openapi.json"])
def test_what_is_not_there_is_not_found(relay: Relay, path: str) -> None:
    """Pages of the ops port are not found on the main port."""
    assert get(relay.url + path)[0] == 404


def test_posting_is_not_allowed(relay: Relay) -> None:
    """The relay accepts no data over HTTP."""
    for path in ("/", "/health", "/assets/app.js"):
        assert get(relay.url + path, b"x")[0] == 405


def test_health_reports_the_state(relay: Relay) -> None:
    """``/health`` reports the state to load balancers."""
    code, headers, body = get(relay.url + "/health")
    assert (code, headers.get_content_type()) == (200, "application/json")
    assert json.loads(body) == {
        "status": "ok", "upstream": "connected", "store": "unknown", "connections": 0,
    }  # fmt: skip


def test_probes_answer(relay: Relay) -> None:
    """Liveness and readiness respond with a word."""
    assert get(relay.ops_url + "/livez")[::2] == (200, b"ok\n")
    assert get(relay.ops_url + "/readyz")[::2] == (200, b"ready\n")


def test_the_status_describes_the_relay(relay: Relay) -> None:
    """``/statusz`` shows sessions, feeds and the event log."""

    async def check() -> None:
        async with follow(relay.ws_url, subjects="log.>", level="warn"):
            status = json.loads(get(relay.ops_url + "/statusz")[2])
            assert status["ready"] is True
            assert status["upstream"] == "connected"
            assert status["lag"] == 0
            assert status["log"]["events"] == 7
            assert status["log"]["bytes"] > 500
            assert parse_cursor(status["log"]["from"])[1] == 0
            assert parse_cursor(status["cursor"])[1] == 8
            assert status["states"]["system.health"] == {"known": 0, "missing": 0, "evicted": 0}
            assert status["sessions"] == {"open": 1, "behind": 0}
            history = status["history"]
            assert set(history) == {"loaded", "problem", "gateways", "entries", "truncated", "bytes"}
            assert (history["problem"], history["truncated"]) == ("", 0)
            (feed,) = status["feeds"]
            assert (feed["subjects"], feed["level"], feed["members"]) == (["log.>"], "WARN", 1)

    run(check())


def metrics(relay: Relay, accept: str) -> dict[str, Metric]:
    """Return metrics by family, parsed by a strict parser."""
    _, headers, body = get(relay.ops_url + "/metrics", Accept=accept)
    strict = headers.get_content_type() == "application/openmetrics-text"
    assert strict == ("openmetrics" in accept)
    families = (parse_openmetrics if strict else parse_text)(body.decode())
    return {family.name: family for family in families}


@pytest.mark.parametrize("accept", ["text/plain", "*/*", OPENMETRICS])
def test_metrics_have_their_names_and_types(relay: Relay, accept: str) -> None:
    """Names and types are correct in both formats."""
    found = metrics(relay, accept)
    for name, kind in PROMISED.items():
        assert found[f"tickertape_{name}"].type == kind, name
        assert found[f"tickertape_{name}"].documentation
    samples = {sample.name: sample for family in found.values() for sample in family.samples}
    assert samples["tickertape_build_info"].labels["version"]
    results = {sample.labels["result"] for sample in found["tickertape_handshakes"].samples}
    assert results == {"accepted", "rejected"}
    assert "process_resident_memory_bytes" in samples


def test_metrics_count_what_happened(relay: Relay) -> None:
    """The counters match what one client has received."""
    found = metrics(relay, "text/plain")

    def value(name: str, **labels: str) -> float:
        return next(
            sample.value
            for family in found.values()
            for sample in family.samples
            if sample.name == f"tickertape_{name}" and sample.labels == labels
        )

    assert value("events_received_total", kind="log") == 6
    assert value("events_received_total", kind="state") == 1
    assert value("events_rejected_total", reason="bad_json") == 1
    assert value("events_delivered_total") == 7
    assert value("delivery_delay_seconds_count") == 7
    assert value("delivery_delay_seconds_bucket", le="+Inf") == 7
    assert value("event_age_seconds_bucket", le="60.0") == 7
    assert value("nats_connected") == 1
    assert value("connections") == 0
    assert value("handshakes_total", result="accepted") >= 1
    assert value("disconnects_total", code="1000") >= 1
    assert value("messages_sent_total") >= 4
    assert value("bytes_sent_total") > 1000


def test_no_label_names_a_client_or_a_subject(relay: Relay) -> None:
    """Labels have few, known values."""
    labels = {
        label
        for name, family in metrics(relay, "text/plain").items()
        if name.startswith("tickertape_")
        for sample in family.samples
        for label in sample.labels
    }
    expected = {
        "result", "code", "family", "kind", "reason", "source", "version", "le", "limit", "mode", "transport",
    }  # fmt: skip
    assert labels <= expected


def test_the_document_has_every_metric(relay: Relay) -> None:
    """The documentation lists every metric with its type, label and help."""
    text = (ROOT / "deploy" / "prometheus" / "README.md").read_text()
    section = text.partition("## Metrics of the relay\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (?:`(\w+)`)? *\| (.+) \|$", section, re.MULTILINE)
    documented = {name: label for name, _, label, _ in rows}
    there = []
    for name, family in metrics(relay, OPENMETRICS).items():
        if name.startswith("tickertape_"):
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            kind = "gauge" if family.type == "info" else family.type
            ending = {"counter": "_total", "info": "_info"}.get(family.type, "")
            # Without a sample, as while auditing is off, the label cannot be seen.
            label = "".join(labels) if family.samples else documented.get(name + ending, "")
            there.append((name + ending, kind, label, family.documentation))
    assert rows == there
