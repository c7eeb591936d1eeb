"""A real Prometheus with the deployed configuration, scraping a relay, a monitor and a shipper."""

import asyncio
import json
import math
import re
import signal
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import pytest
import trustme
import yaml
from websockets.sync.client import connect

from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run
from tests.support.paths import ROOT
from tests.support.programs.relay_process import Relay, command, environment, eventually
from tests.support.servers.nats_server import NatsServer, free_port
from tests.support.servers.prometheus_server import DEPLOYED, Prometheus

CLIENTS = 7
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
DASHBOARDS = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
WINDOW = "1m"
"""Value of $__rate_interval: longer than the test, so that every rate covers all of its traffic."""

GATEWAYS = """
defaults: {{interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1}}
gateways:
  - {{id: main, type: ctp, probes: [{{kind: tls, address: "127.0.0.1:{tls}", ca: "{ca}"}}]}}
  - {{id: down, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{down}"}}]}}
"""


@dataclass(frozen=True, slots=True)
class World:
    """Running programs.

    Attributes:
        relay: relay with ``CLIENTS`` connected clients.
        targets: addresses of the programs.
        prometheus: Prometheus that scrapes all programs.
    """

    relay: Relay
    targets: dict[str, list[str]]
    prometheus: Prometheus


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Start all programs, and generate traffic of all kinds."""
    folder = tmp_path_factory.mktemp("world")
    ports = [free_port() for _ in range(2)]
    with ExitStack() as stack:
        server = stack.enter_context(NatsServer(folder / "nats"))
        relay = stack.enter_context(Relay(server.url, "--audit", "--client-rate", "5"))
        tls = stack.enter_context(tls_server(folder))
        config, logs = folder / "gateways.yaml", folder / "app.log"
        config.write_text(GATEWAYS.format(tls=tls, ca=folder / "ca.pem", down=free_port()))
        logs.write_text("2026-01-01 12:00:00 ERROR margin call\n")
        nats = ("--nats-url", server.url, "--metrics-port")
        stack.enter_context(program(folder, "monitor", "--gateways", str(config), *nats, str(ports[0])))
        ship = ("ship", str(logs), "--state-dir", str(folder / "state"), "--health-interval", "1")
        stack.enter_context(program(folder, *ship, *nats, str(ports[1])))
        targets = {
            "relays": [relay.ops_url.removeprefix("http://")],
            "monitors": [f"127.0.0.1:{ports[0]}"],
            "shippers": [f"127.0.0.1:{ports[1]}"],
        }
        prometheus = stack.enter_context(Prometheus(folder, targets))
        eventually(
            lambda: [value for _, value in prometheus.query("sum(up)")] == [3.0], "all three are scraped"
        )
        for _ in range(CLIENTS):
            stack.enter_context(
                connect(relay.ws_url, max_queue=None, proxy=None, ping_interval=None, compression=None)
            )
        run(traffic(server.url, relay))
        yield World(relay, targets, prometheus)


@contextmanager
def program(folder: Path, *arguments: str) -> Iterator[None]:
    """Run a producer in a process."""
    with (folder / f"{arguments[0]}.log").open("wb") as log:
        process = subprocess.Popen(
            command(*arguments), cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def tls_server(folder: Path) -> Iterator[int]:
    """Start a TLS server for the TLS probe, and yield its port; ``ca.pem`` has its CA certificate."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    class Handshake(StreamRequestHandler):
        def handle(self) -> None:
            try:
                with context.wrap_socket(self.request, server_side=True) as link:
                    link.recv(1)
            except OSError:
                return  # The peer closed the connection.

    with ThreadingTCPServer(("127.0.0.1", 0), Handshake) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


async def traffic(nats_url: str, relay: Relay) -> None:
    """Deliver, drop, conflate, reject and trace events, and let a client resume."""
    async with jetstream(nats_url) as js:
        async with follow(relay.ws_url, mode="latest", interval_ms=100) as latest:
            await publish(js, line("traced"), traceparent=f"00-{TRACE}-00f067aa0ba902b7-01")
            await asyncio.gather(*(publish(js, line(f"flood {number}")) for number in range(300)))
            await js.publish("log.info.x", b"nonsense")
            await latest.until(lambda: any(getattr(message, "conflated", 0) for message in latest.messages))
        async with follow(relay.ws_url, mode="complete") as client:
            await publish(js, line("connected"))
            await client.events(1)
            cursor = client.cursor
        await publish(js, line("disconnected"))
        async with follow(relay.ws_url, mode="complete", cursor=cursor) as client:
            await client.events(1)


def number(world: World, expression: str) -> float:
    """Return the value of an expression; -1 if it has no result."""
    results = world.prometheus.query(expression)
    return results[0][1] if results else -1.0


def test_connections_are_counted(world: World) -> None:
    """The metric and the recording rule count all connections."""
    eventually(lambda: number(world, "sum(tickertape_connections)") == CLIENTS, "all connections are counted")
    eventually(lambda: number(world, "job:tickertape_connections:sum") == CLIENTS, "the rule has a value")


@pytest.mark.parametrize(
    "expression",
    [
        'tickertape_events_dropped_total{reason="rate"}',
        'tickertape_gaps_total{reason="rate"}',
        "tickertape_events_conflated_total",
        'tickertape_events_rejected_total{reason="bad_json"}',
        'tickertape_resumes_total{source="log"}',
        'tickertape_disconnects_total{code="1000"}',
        "tickertape_handshake_duration_seconds_count",
        "tickertape_flush_duration_seconds_count",
        "tickertape_event_loop_lag_seconds_count",
        "tickertape_nats_round_trip_seconds",
        "tickertape_log_seconds",
        "instance:tickertape_open_fds:ratio",
        "tickertape_monitor_last_loop_timestamp_seconds",
        'tickertape_ship_events_total{level="error"}',
        'tickertape_gateway_status{gateway="down", status="UNHEALTHY"}',
        'tickertape_gateway_status{gateway="main", status="HEALTHY"}',
    ],
)
def test_metrics_reflect_the_traffic(world: World, expression: str) -> None:
    """Each metric reflects the generated traffic."""
    eventually(lambda: number(world, expression) > 0, f"{expression} is above zero")


def queries(board: Path) -> list[tuple[str, str]]:
    """Return title and expression of each query of a dashboard, with its variables replaced."""
    results = []
    for panel in json.loads(board.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"].replace("$__rate_interval", WINDOW)
            expression = expression.replace('"$job"', '"tickertape-relay"')
            results.append((panel["title"], re.sub(r'"\$(instance|type|gateway)"', '".+"', expression)))
    return results


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda path: path.stem)
def test_every_query_of_a_dashboard_returns_data(world: World, board: Path) -> None:
    """Every query of every panel returns data."""
    expressions = queries(board)
    assert len(expressions) > 15
    assert not [expression for _, expression in expressions if "$" in expression]

    def empty() -> list[str]:
        return [
            f"{title}: {expression}"
            for title, expression in expressions
            if not any(math.isfinite(value) for _, value in world.prometheus.query(expression))
        ]

    try:
        eventually(lambda: not empty(), "all panels have data")
    except TimeoutError:
        pytest.fail("without data: " + "\n".join(empty()))


@pytest.mark.parametrize("board", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_complete(board: Path) -> None:
    """Panels have titles, units and the selected data source, and do not overlap."""
    content: dict[str, Any] = json.loads(board.read_text())
    assert content["schemaVersion"] >= 39
    assert content["templating"]["list"][0]["type"] == "datasource"
    occupied: set[tuple[int, int]] = set()
    for panel in content["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert max(x for x, _ in cells) < 24
        assert not cells & occupied, panel["title"]
        occupied |= cells
        assert panel["title"]
        if panel["type"] != "row":
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["targets"]
    identifiers = [panel["id"] for panel in content["panels"]]
    assert len(identifiers) == len(set(identifiers))


def test_every_recording_rule_returns_data(world: World) -> None:
    """Every recording rule has a finite value."""
    groups = yaml.safe_load((DEPLOYED / "rules" / "recording.yml").read_text())["groups"]
    names = [rule["record"] for group in groups for rule in group["rules"]]
    assert len(names) > 5

    def empty() -> list[str]:
        return [
            name
            for name in names
            if not any(math.isfinite(value) for _, value in world.prometheus.query(name))
        ]

    eventually(lambda: not empty(), f"all of {names} have data")


def test_alerts_are_evaluated(world: World) -> None:
    """Prometheus evaluates all alerts without errors, and only the one for the gateway fires."""
    rules = [rule for group in world.prometheus.ask("rules")["groups"] for rule in group["rules"]]
    deployed = re.findall(r"- alert: (\w+)", (DEPLOYED / "rules" / "alerts.yml").read_text())
    assert sorted(rule["name"] for rule in rules if rule["type"] == "alerting") == sorted(deployed)
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}

    # A scrape that takes longer than its interval makes an alert pending for a moment.
    eventually(
        lambda: world.prometheus.active_alerts() <= {"TickertapeGatewayUnhealthy"},
        "only the gateway's alert is active",
    )


KINDS = ("relays", "monitors", "shippers")
SUBSETS = [set(kinds) for count in range(3) for kinds in combinations(KINDS, count)]


def test_no_alert_fires_for_what_is_not_installed(world: World, tmp_path: Path) -> None:
    """Whatever is installed, no alert is about something else; the gateway's needs a monitor."""
    with ExitStack() as stack:
        running = []
        for number, kinds in enumerate(SUBSETS):
            folder = tmp_path / str(number)
            folder.mkdir()
            targets = {kind: world.targets[kind] if kind in kinds else [] for kind in KINDS}
            running.append(stack.enter_context(Prometheus(folder, targets, quick=True)))
        for kinds, prometheus in zip(SUBSETS, running, strict=True):
            gateway = {"TickertapeGatewayUnhealthy"} if "monitors" in kinds else set()
            eventually(lambda: evaluations(prometheus) > 8, "alerts have been evaluated for seconds")  # noqa: B023
            eventually(lambda: prometheus.active_alerts("firing") == gateway, f"{gateway} with {kinds}")  # noqa: B023


def evaluations(prometheus: Prometheus) -> int:
    """Return how often the rules have been evaluated with scraped targets."""
    results = prometheus.ask("query", query="max(count_over_time(up[1h])) or vector(100)")["result"]
    return int(results[0]["value"][1])


@pytest.mark.parametrize("histogram", ["delivery_delay_seconds", "event_age_seconds"])
def test_delays_have_exemplars(world: World, histogram: str) -> None:
    """The trace of a delivered event is the exemplar of its delay."""

    def traces() -> set[str]:
        results = world.prometheus.ask(
            "query_exemplars", query=f"tickertape_{histogram}_bucket", start="0", end="9999999999"
        )
        return {exemplar["labels"]["trace_id"] for series in results for exemplar in series["exemplars"]}

    eventually(lambda: traces() == {TRACE}, f"{histogram} has its exemplar")


@pytest.mark.parametrize("job", ["relay", "monitor", "shipper"])
def test_the_document_lists_every_metric(world: World, job: str) -> None:
    """The document lists all metrics of a program, and no others."""
    text = (DEPLOYED / "README.md").read_text()
    section = text.partition(f"## Metrics of the {job}\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))

    def scraped() -> set[str]:
        results = world.prometheus.ask("label/__name__/values", **{"match[]": f'{{job="tickertape-{job}"}}'})
        return {
            re.sub(r"_(bucket|sum|count)$", "", name)
            if re.search(r"seconds_(bucket|sum|count)$", name)
            else name
            for name in results
            if re.match(r"(tickertape|probe)_", name) and not name.endswith("_created")
        }

    # Without series: redactions and failures before the first one, files of tokens without authentication,
    # and the store of NATS without its monitoring port.
    unused = {
        "tickertape_monitor_gateway_failures_total",
        "tickertape_ship_redacted_total",
        "tickertape_auth_source_valid",
        "tickertape_nats_store_writable",
    }
    eventually(lambda: listed - scraped() <= unused, f"all but {unused} of {listed} are scraped")
    assert scraped() <= listed
