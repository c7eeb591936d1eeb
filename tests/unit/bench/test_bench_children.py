"""The modules that the benchmark runs as child processes."""

import ast
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BENCH = ROOT / "tests" / "bench"


def parts(path: Path) -> set[str]:
    """Return the names of the modules that a benchmark module starts."""
    return {
        str(node.args[1].value)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "module"
        and isinstance(node.args[1], ast.Constant)
    }


STARTED = sorted(set().union(*(parts(path) for path in BENCH.rglob("*.py"))))


def test_some_are_started() -> None:
    """The search finds started modules."""
    assert {"loadgen", "publisher", "peers"} <= set(STARTED)


@pytest.mark.parametrize("name", STARTED)
def test_each_is_there(name: str) -> None:
    """Every started module exists under that name."""
    assert find_spec(f"tests.bench.load.{name}") is not None
