"""SECURITY.md agrees with the code."""

import re
from functools import cache

from tickertape.relay.core.connection_limits import Limit
from tickertape.relay.settings import RelaySettings

from tests.support.paths import ROOT

PAGE = ROOT / "SECURITY.md"
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.read_text().partition("## Limits")[2].partition("## Data")[0].splitlines()
    if line.startswith("| ")
][2:]


def test_every_limit_has_its_option_and_its_default() -> None:
    """Options and defaults in the table are those of the settings."""
    for _, option, default, _ in ROWS:
        if option:
            field = RelaySettings.model_fields[option.strip("`-").replace("-", "_")]
            assert float(default.partition(":")[0]) == field.default, option


def test_every_limit_of_the_metric_is_in_the_table() -> None:
    """The table lists every limit of the metric and no other."""
    named = {name for *_, names in ROWS for name in re.findall(r"`(\w+)`", names) if name != "gap"}
    assert named == {str(limit) for limit in Limit}


GUARANTEES = [
    (cells[0], re.findall(r"`(\S+?)::(\w+)`", cells[1]))
    for line in PAGE.read_text().partition("## Guarantees")[2].partition("\n## ")[0].splitlines()
    if line.startswith("| ") and len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 2
][2:]
ATTACKS = sorted(path.name for path in (ROOT / "tests" / "integration" / "attacks").glob("test_*.py"))


@cache
def _tests_of(path: str) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", (ROOT / "tests" / path).read_text(), re.M))


def test_every_guarantee_has_tests_that_exist() -> None:
    """Each guarantee names at least one test, and all named tests exist."""
    assert len(GUARANTEES) > 20
    for guarantee, tests in GUARANTEES:
        assert tests, guarantee
        assert [name for path, name in tests if name not in _tests_of(path)] == []


def test_every_attack_holds_a_guarantee() -> None:
    """Each module of attacks is named by a guarantee."""
    named = {path.rpartition("/")[2] for _, tests in GUARANTEES for path, _ in tests}
    assert [name for name in ATTACKS if name not in named] == []
