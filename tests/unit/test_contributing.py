"""The table of changes names existing files, and few of them."""

import re

import pytest

from tests.support.paths import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and "`" in line]
_PATH = re.compile(r"`([\w.]+(?:/[\w.<>]+)*\.(?:py|md|ts|conf|yaml))`")


def test_twelve_changes_are_listed() -> None:
    """The table has a row for each of the twelve common changes."""
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS)
def test_a_change_needs_few_files_that_are_there(row: str) -> None:
    """A row names at most five files; a new file is in an existing folder."""
    files = _PATH.findall(row)
    assert 0 < len(files) <= 5
    for file in files:
        position = ROOT / file
        assert position.parent.is_dir() if "<" in file else position.is_file(), file
