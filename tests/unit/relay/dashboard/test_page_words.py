"""What the page says stands in one file."""

import re
from pathlib import Path
from typing import Final

import pytest

from tests.support.paths import ROOT

DASHBOARD: Final = ROOT / "relay" / "dashboard"
SOURCES: Final = sorted(set(DASHBOARD.glob("*.js")) - {DASHBOARD / "strings.js"})
COMMENT: Final = re.compile(r"/\*.*?\*/|^\s*//.*?$", re.S | re.M)
SENTENCE: Final = re.compile(r"[\"`]([A-Z][a-z]+ [a-z][^\"`]*)[\"`]")
DOM_ERROR: Final = "index.html has no element"
"""Said to whoever writes the page, not to who reads it."""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_no_module_says_anything_of_its_own(source: Path) -> None:
    """No module but strings.js holds a sentence."""
    code = COMMENT.sub("", source.read_text())
    assert [said for said in SENTENCE.findall(code) if DOM_ERROR not in said] == []


def test_the_page_itself_says_nothing_of_its_own() -> None:
    """Between the tags of index.html, and in what is read out, stand names of texts only."""
    page = COMMENT.sub("", (DASHBOARD / "index.html").read_text()).partition("<body")[2]
    between = re.findall(r">\s*([^<>{}\s][^<>{}]*?)\s*<", page)
    assert [text for text in between if text not in ("0", "/", "p")] == []
    assert [
        said for said in re.findall(r'(?:aria-label|title|placeholder)="([^"]*)"', page) if "{{" not in said
    ] == []
