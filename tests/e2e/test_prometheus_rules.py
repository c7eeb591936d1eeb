"""Deployed Prometheus configuration, checked with promtool, and its documentation."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers.prometheus_server import DEPLOYED, find

TESTS = sorted((DEPLOYED / "tests").glob("*.yml"))


def promtool(*arguments: str | Path) -> None:
    """Run promtool, and fail the test if it reports an error."""
    result = subprocess.run([find("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def alerts() -> dict[str, dict[str, Any]]:
    """Return the alerts by name."""
    groups = yaml.safe_load((DEPLOYED / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_the_configuration_is_valid() -> None:
    """promtool accepts the configuration and its rules."""
    promtool("check", "config", DEPLOYED / "prometheus.yml")
    promtool("check", "rules", *sorted((DEPLOYED / "rules").glob("*.yml")))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_pass_their_tests(path: Path) -> None:
    """The unit tests of the rules pass."""
    promtool("test", "rules", path)


def test_each_alert_has_positive_and_negative_tests() -> None:
    """Each alert has a test in which it fires and one in which it does not."""
    fires: set[str] = set()
    silent: set[str] = set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for expectation in case.get("alert_rule_test", ()):
                (fires if expectation["exp_alerts"] else silent).add(expectation["alertname"])
    assert fires == silent == set(alerts())


@pytest.mark.parametrize("name", sorted(alerts()))
def test_each_alert_has_a_runbook(name: str) -> None:
    """Each alert has a severity, a description with a value, and a link to its heading in the runbook."""
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert re.search(r"\$value|\| value }}", alert["annotations"]["description"])
    page = "{{ or $externalLabels.tickertape_runbook (printf `%s/user/runbook.html` externalURL) }}"
    assert alert["annotations"]["runbook_url"] == f"{page}#{name.lower()}"
    runbook = (DEPLOYED / "runbook" / "runbook.html").read_text()
    assert f'<h3 id="{name.lower()}">{name}</h3>\n<p>' in runbook


def test_the_runbook_and_the_chart_are_current() -> None:
    """The runbook is that of the deployment page, and the chart has the same rules."""
    program = [sys.executable, str(DEPLOYED / "runbook.py"), "--check"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    chart = DEPLOYED.parent / "helm" / "tickertape" / "rules"
    rules = {path.name: path.read_text() for path in (DEPLOYED / "rules").iterdir()}
    assert {path.name: path.read_text() for path in chart.iterdir()} == rules, "run 'make runbook'"


def test_amtool_accepts_the_routes() -> None:
    """amtool accepts the example for Alertmanager, and finds the receiver of each severity."""
    amtool, path = find("amtool"), DEPLOYED / "alertmanager.yml"
    done = subprocess.run([amtool, "check-config", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for severity, receiver in (("critical", "on-call"), ("warning", "team")):
        route = [amtool, "config", "routes", "test", f"--config.file={path}", f"severity={severity}"]
        done = subprocess.run(route, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == receiver


def test_the_document_lists_the_alerts() -> None:
    """The document lists all alerts with their severities."""
    text = (DEPLOYED / "README.md").read_text()
    listed = dict(re.findall(r"^\| `(Tickertape\w+)` \| (\w+) \|", text, re.MULTILINE))
    assert listed == {name: alert["labels"]["severity"] for name, alert in alerts().items()}
