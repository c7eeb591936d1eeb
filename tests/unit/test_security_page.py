"""SECURITY.md says what the code does."""

import re

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
    """As the settings have them."""
    for _, option, default, _ in ROWS:
        if option:
            field = RelaySettings.model_fields[option.strip("`-").replace("-", "_")]
            assert float(default.partition(":")[0]) == field.default, option


def test_every_limit_of_the_metric_is_in_the_table() -> None:
    """And no other."""
    named = {name for *_, names in ROWS for name in re.findall(r"`(\w+)`", names) if name != "gap"}
    assert named == {str(limit) for limit in Limit}
