"""The page about data flow names existing functions in the files that it names."""

import ast
import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

PAGE = ROOT / "docs" / "architecture" / "data-flow.md"
_ROW = re.compile(r"^\| `([\w/.]+\.py)` \| `([\w.]+)` \|", re.MULTILINE)
_ASIDE = re.compile(r"`([\w/.]+\.py)`[ \n]\(?`?([\w.]+)`?\)")
_INLINE = re.compile(r"\(`([\w/.]+\.py)`, `([\w.]+)`\)")


def named() -> list[tuple[str, str]]:
    """Return each file and function that the page names."""
    page = PAGE.read_text()
    return sorted({*_ROW.findall(page), *_ASIDE.findall(page), *_INLINE.findall(page)})


def functions(path: Path) -> set[str]:
    """Return the functions and methods of a file, as ``Class.method``."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
    return found


def test_the_page_has_three_walks() -> None:
    """The page follows an event, a subscription and a log line, with all their hops."""
    assert len(_ROW.findall(PAGE.read_text())) > 25
    assert len(named()) > 25


@pytest.mark.parametrize(("file", "function"), named())
def test_each_hop_is_where_the_page_says(file: str, function: str) -> None:
    """Every function on the page exists in its file."""
    assert function in functions(ROOT / file)
