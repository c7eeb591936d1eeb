"""The deployment page names existing things, and is short."""

import re
from pathlib import Path

import pytest

from tests.support.deploy_options import DEPLOY, options
from tests.support.paths import ROOT

PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")
ALERTS = {
    *("TickertapeRelayDown", "TickertapeUpstreamLost", "TickertapeIngestLag", "TickertapeRetentionGaps"),
    *("TickertapeAuthFailures", "TickertapeGatewayUnhealthy", "TickertapeMonitorSilent"),
    *("TickertapeShipperLag", "TickertapeDescriptors", "TickertapeStatesMissing"),
    "TickertapeAuthSourceInvalid",
    "TickertapeAuditRecordsLost",
}
ELSEWHERE = {"prometheus", "grafana"}
"""Folders that are covered elsewhere."""


def test_every_alert_has_its_place() -> None:
    """Each alert's link leads to a heading with its name."""
    assert set(re.findall(r"^### (Tickertape\w+)$", PAGE, re.MULTILINE)) == ALERTS
    rules = DEPLOY / "prometheus" / "rules" / "alerts.yml"
    if rules.exists():
        assert set(re.findall(r"alert: (\w+)", rules.read_text(encoding="utf-8"))) == ALERTS


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    """Each link leads to an existing file or folder."""
    if link not in ELSEWHERE:
        assert Path(DEPLOY, link.partition("#")[0]).exists()


def test_options_exist() -> None:
    """Each option on the page is one of our commands' or of the NATS command line."""
    known = {"--replicas", "--inbox-prefix"}.union(
        *map(options, ("serve", "monitor", "ship", "check", "streams"))
    )
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGE)) - known == set()


def test_figures_are_those_of_the_main_page() -> None:
    """The figures are those of the README."""
    figures = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Figures")[2]
    for figure in (
        "M deliveries per core-second",
        "k events per core-second",
        "KB with deflate",
        "x fewer bytes",
    ):
        (value,) = re.findall(rf"([\d.]+) {figure}", figures)
        assert value in PAGE, figure


def test_it_is_two_pages() -> None:
    """The page fits on two printed pages."""
    assert len(PAGE.split()) <= 1_700
