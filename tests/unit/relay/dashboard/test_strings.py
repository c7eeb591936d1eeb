"""All texts of the dashboard are in strings.js."""

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
"""Error for developers, not for users."""


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_modules_contain_no_texts(source: Path) -> None:
    """No module except strings.js contains a sentence."""
    code = COMMENT.sub("", source.read_text())
    assert [text for text in SENTENCE.findall(code) if DOM_ERROR not in text] == []


def test_index_html_contains_no_texts() -> None:
    """Text and attributes of index.html contain only references to texts."""
    page = COMMENT.sub("", (DASHBOARD / "index.html").read_text()).partition("<body")[2]
    between = re.findall(r">\s*([^<>{}\s][^<>{}]*?)\s*<", page)
    assert [text for text in between if text not in ("0", "/", "p")] == []
    assert [
        text for text in re.findall(r'(?:aria-label|title|placeholder)="([^"]*)"', page) if "{{" not in text
    ] == []
