"""SECURITY.md agrees with the code."""

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
    """Options and defaults in the table are those of the settings."""
    for _, option, default, _ in ROWS:
        if option:
            field = RelaySettings.model_fields[option.strip("`-").replace("-", "_")]
            assert float(default.partition(":")[0]) == field.default, option


def test_every_limit_of_the_metric_is_in_the_table() -> None:
    """The table lists every limit of the metric and no other."""
    named = {name for *_, names in ROWS for name in re.findall(r"`(\w+)`", names) if name != "gap"}
    assert named == {str(limit) for limit in Limit}
