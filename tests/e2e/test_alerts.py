"""Every alert on its way through a real Prometheus and a real Alertmanager to a webhook, and its end.

The metrics are served by the test, one target for each alert; ``tests/chaos/test_alerts.py`` brings the
conditions about in real programs.
"""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.request import urlopen

import pytest
import yaml

from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import eventually
from tests.support.servers.alertmanager_server import alertmanager, serve, webhook
from tests.support.servers.prometheus_server import DEPLOYED, Prometheus

RULES: dict[str, dict[str, Any]] = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOYED / "rules" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
}
DOWN = "down"
GATEWAY = 'gateway="a",type="ctp"'
UNHEALTHY = f'tickertape_gateway_status{{{GATEWAY},status="UNHEALTHY"}}'
CONDITIONS: dict[str, tuple[str, str, str]] = {
    "TickertapeRelayDown": ("relays", "", DOWN),
    "TickertapeUpstreamLost": ("relays", "tickertape_nats_connected 1", "tickertape_nats_connected 0"),
    "TickertapeNatsStoreFailed": (
        "relays",
        "tickertape_nats_store_writable 1",
        "tickertape_nats_store_writable 0",
    ),
    "TickertapeIngestLag": (
        "relays",
        "tickertape_ingest_lag_events 5000",
        "tickertape_ingest_lag_events 5001",
    ),
    "TickertapeRetentionGaps": (
        "relays",
        'tickertape_gaps_total{reason="retention"} 3',
        'tickertape_gaps_total{reason="retention"} {count}',
    ),
    "TickertapeStatesMissing": (
        "relays",
        'tickertape_states_missing{family="system.health"} 0',
        'tickertape_states_missing{family="system.health"} 7',
    ),
    "TickertapeAuthFailures": (
        "relays",
        'tickertape_auth_failures_total{reason="expired"} 0',
        'tickertape_auth_failures_total{reason="expired"} {count}',
    ),
    "TickertapeAuditRecordsLost": (
        "relays",
        'tickertape_audit_records_total{result="lost"} 0',
        'tickertape_audit_records_total{result="lost"} {count}',
    ),
    "TickertapeAuthSourceInvalid": (
        "relays",
        'tickertape_auth_source_valid{source="keys"} 1',
        'tickertape_auth_source_valid{source="keys"} 0',
    ),
    "TickertapeDescriptors": (
        "relays",
        "process_open_fds 79\nprocess_max_fds 100",
        "process_open_fds 81\nprocess_max_fds 100",
    ),
    "TickertapeGatewayUnhealthy": (
        "monitors",
        f"{UNHEALTHY} 0",
        f'{UNHEALTHY} 1\nprobe_success{{{GATEWAY},probe="0"}} 0',
    ),
    "TickertapeMonitorSilent": (
        "monitors",
        "tickertape_monitor_last_loop_timestamp_seconds {count}",
        "tickertape_monitor_last_loop_timestamp_seconds 1",
    ),
    "TickertapeHistoryNotLoaded": ("relays", "tickertape_history_loaded 1", "tickertape_history_loaded 0"),
    "TickertapeMonitorConfigRejected": (
        "monitors",
        "tickertape_monitor_config_last_reload_successful 1",
        "tickertape_monitor_config_last_reload_successful 0",
    ),
    "TickertapeMonitorGatewayFailures": (
        "monitors",
        "",
        f'tickertape_monitor_gateway_failures_total{{{GATEWAY},activity="probe"}} {{count}}',
    ),
    "TickertapeGatewayDisputed": (
        "monitors",
        f"tickertape_gateway_dissent{{{GATEWAY}}} 0",
        f"tickertape_gateway_dissent{{{GATEWAY}}} 1",
    ),
    "TickertapeShipperDown": ("shippers", "", DOWN),
    "TickertapeShipperLag": ("shippers", "tickertape_ship_lag_seconds 60", "tickertape_ship_lag_seconds 61"),
}
"""For each alert its program, and its metrics without and with the alert's cause; ``{count}`` grows."""


@dataclass(frozen=True)
class World:
    """Record of every alert.

    Attributes:
        prometheus: Prometheus, which is still running.
        instances: address of each alert's target.
        early: notifications while all was well.
        firing: the alerts as the webhook got them.
        paths: paths of the webhooks by severity.
        ended: names of alerts whose end the webhook got.
    """

    prometheus: Prometheus
    instances: dict[str, str]
    early: list[str]
    firing: dict[str, dict[str, Any]]
    paths: dict[str, set[str]]
    ended: set[str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Serve metrics without, with and again without the causes of all alerts."""
    folder = tmp_path_factory.mktemp("alerts")
    targets: dict[str, list[str]] = {"relays": [], "monitors": [], "shippers": []}
    instances, state = {}, {"broken": False}
    with ExitStack() as stack:
        notified = stack.enter_context(webhook())
        targets["alertmanagers"] = [stack.enter_context(alertmanager(folder, notified.port))]
        for name, (kind, *texts) in CONDITIONS.items():
            port = stack.enter_context(serve(partial(metrics, texts, state)))
            instances[name] = f"127.0.0.1:{port}"
            targets[kind].append(instances[name])
        prometheus = stack.enter_context(Prometheus(folder, targets, quick=True))
        everywhere = f"count(count_over_time(up[1h]) > 5) == {len(instances)}"
        eventually(lambda: bool(prometheus.query(everywhere)), "all are scraped a few times")
        early = sorted(notified.firing())
        state["broken"] = True
        until(lambda: notified.unresolved() ^ instances.keys(), "all alerts are received")
        firing = notified.firing()
        state["broken"] = False
        until(lambda: notified.unresolved() & instances.keys(), "all alerts have ended")
        paths = {severity: notified.paths(severity) for severity in ("critical", "warning")}
        yield World(prometheus, instances, early, firing, paths, firing.keys() - notified.unresolved())


def metrics(texts: list[str], state: dict[str, bool], path: str, body: bytes) -> tuple[int, bytes]:
    """Return the metrics of a target in its present state."""
    text = texts[state["broken"]]
    return (503 if text == DOWN else 200), text.replace("{count}", f"{10 * time.time():.0f}").encode() + b"\n"


def until(missing: Callable[[], set[str]], what: str) -> None:
    """Wait until nothing is missing; otherwise fail with what is."""
    try:
        eventually(lambda: not missing(), what)
    except TimeoutError as error:
        pytest.fail(f"{error}: {missing()}")


def test_each_alert_has_a_condition() -> None:
    """Each alert of the rules is tested."""
    assert CONDITIONS.keys() == RULES.keys()


def test_a_healthy_installation_is_quiet(world: World) -> None:
    """No alert is sent while all is well."""
    assert world.early == []


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_an_alert_arrives_and_ends(world: World, name: str) -> None:
    """The webhook gets an alert with all that a person on call needs, and its end."""
    alert = world.firing[name]
    labels, annotations = alert["labels"], alert["annotations"]
    assert labels["severity"] == RULES[name]["labels"]["severity"]
    assert "tickertape_runbook" not in labels
    about = {labels.get("instance"), f"{labels.get('type')}/{labels.get('gateway')}"}
    assert about & {world.instances[name], "ctp/a"}
    assert annotations.keys() == {"summary", "description", "runbook_url"}
    for text in annotations.values():
        assert text.strip()
        assert not re.search(r"\{\{|<no value>|<error|%!", text), text
    assert re.search(r"\d", annotations["description"].replace(world.instances[name], ""))
    assert name in world.ended


@pytest.mark.parametrize("name", sorted(CONDITIONS))
def test_the_runbook_opens(world: World, name: str) -> None:
    """The link of an alert is absolute, and leads to its heading on the page that Prometheus serves."""
    page, _, anchor = world.firing[name]["annotations"]["runbook_url"].partition("#")
    assert page.startswith(f"{world.prometheus.url}/")
    with urlopen(page, timeout=PATIENCE) as answer:
        assert answer.headers["Content-Type"].startswith("text/html")
        assert f'<h3 id="{anchor}">{name}</h3>' in answer.read().decode()


def test_severities_have_their_receivers(world: World) -> None:
    """Critical alerts go to the person on call, and warnings to the team."""
    assert world.paths == {"critical": {"/on-call"}, "warning": {"/team"}}
