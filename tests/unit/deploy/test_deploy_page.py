"""The deployment page names existing things, and is short."""

import re
from pathlib import Path

import pytest

from tests.support.deploy_options import DEPLOY, options
from tests.support.paths import ROOT

PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")
ELSEWHERE = {"prometheus", "grafana"}
"""Folders that are covered elsewhere."""


def test_every_alert_has_its_place() -> None:
    """Each alert's link leads to a heading with its name."""
    rules = (DEPLOY / "prometheus" / "rules" / "alerts.yml").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", rules)
    assert len(alerts) > 10
    assert sorted(re.findall(r"^### (Tickertape\w+)$", PAGE, re.MULTILINE)) == sorted(alerts)


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)]+)\)", PAGE))))
def test_links_lead_somewhere(link: str) -> None:
    """Each link leads to an existing file or folder."""
    if link not in ELSEWHERE:
        assert Path(DEPLOY, link.partition("#")[0]).exists()


def test_options_exist() -> None:
    """Each option on the page is one of our commands', of the NATS command line, compose or systemd."""
    known = {"--inbox-prefix", "--lock-image-digests", "--user"}.union(
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


def test_it_is_three_pages() -> None:
    """The page fits on three printed pages."""
    assert len(PAGE.split()) <= 2_400
