"""The table of changes names files that there are, and few of them."""

import re

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
_PATH = re.compile(r"`([\w.]+(?:/[\w.<>]+)*\.(?:py|md|ts|conf|yaml))`")


def test_twelve_changes_are_listed() -> None:
    """Those that newcomers were asked to find the files of."""
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS)
def test_a_change_needs_few_files_that_are_there(row: str) -> None:
    """At most five; a new file lies in a folder that there is."""
    files = _PATH.findall(row)
    assert 0 < len(files) <= 5
    for file in files:
        place = ROOT / file
        assert place.parent.is_dir() if "<" in file else place.is_file(), file
