"""What is deployed with Prometheus, read by its own tool, and the documents that tell of it."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.servers.prometheus_server import DEPLOYED, find

TESTS = sorted((DEPLOYED / "tests").glob("*.yml"))


def promtool(*arguments: str | Path) -> None:
    """Run it; what it finds wrong fails the test."""
    done = subprocess.run([find("promtool"), *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> dict[str, dict[str, Any]]:
    """Our alerts by name."""
    groups = yaml.safe_load((DEPLOYED / "rules" / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_the_configuration_is_good() -> None:
    """With the rules that it names."""
    promtool("check", "config", DEPLOYED / "prometheus.yml")
    promtool("check", "rules", *sorted((DEPLOYED / "rules").glob("*.yml")))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_rules_do_what_their_tests_say(path: Path) -> None:
    """On series made up for them."""
    promtool("test", "rules", path)


def test_each_alert_is_tested_both_ways() -> None:
    """It fires on something, and lets something pass."""
    fires: set[str] = set()
    quiet: set[str] = set()
    for path in TESTS:
        for case in yaml.safe_load(path.read_text())["tests"]:
            for look in case.get("alert_rule_test", ()):
                (fires if look["exp_alerts"] else quiet).add(look["alertname"])
    assert fires == quiet == set(alerts())


@pytest.mark.parametrize("name", sorted(alerts()))
def test_an_alert_says_what_to_do(name: str) -> None:
    """How bad it is, what it means, and where the steps stand."""
    alert = alerts()[name]
    assert alert["labels"]["severity"] in ("critical", "warning")
    assert set(alert["annotations"]) == {"summary", "description", "runbook_url"}
    assert alert["annotations"]["runbook_url"] == f"deploy/README.md#{name.lower()}"


def test_the_document_lists_the_alerts() -> None:
    """Each with its severity."""
    text = (DEPLOYED / "README.md").read_text()
    listed = dict(re.findall(r"^\| `(Tickertape\w+)` \| (\w+) \|", text, re.MULTILINE))
    assert listed == {name: alert["labels"]["severity"] for name, alert in alerts().items()}
