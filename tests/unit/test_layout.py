"""The layout of the tree: folders that can be taken in at a glance, and tests that lie as the package does.

Which module may import which is what import-linter looks at, in ``make lint``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

import tickertape
from tests.support.paths import ROOT

PRODUCT = ("contracts", "producers", "relay", "tickertape")
MOST_MODULES = 15
"""In one folder, without its ``__init__.py``."""

GROUPS = ("bench", "deploy")
"""Folders of tests/unit that are for no package."""


def folders(*roots: str) -> Iterator[Path]:
    """Yield folders with modules."""
    for root in roots:
        for path in [ROOT / root, *(ROOT / root).rglob("*")]:
            inside = "node_modules" in path.parts or "typescript" in path.parts
            if path.is_dir() and not inside and list(path.glob("*.py")):
                yield path


@pytest.mark.parametrize("folder", [*folders(*PRODUCT)], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_is_taken_in_at_a_glance(folder: Path) -> None:
    """It is a package, and has no more modules than a reader can choose from."""
    modules = {path.name for path in folder.glob("*.py")}
    assert "__init__.py" in modules
    assert len(modules) - 1 <= MOST_MODULES


def test_unit_tests_lie_as_the_package_does() -> None:
    """Who changes a module finds its tests by the tree alone."""
    unit = ROOT / "tests" / "unit"
    for folder in folders("tests/unit"):
        below = folder.relative_to(unit)
        if below.parts and below.parts[0] not in GROUPS:
            assert (ROOT / below).is_dir() or (ROOT / "tickertape" / below).is_dir(), below


def test_tests_are_packages() -> None:
    """So that two files may have one name, and each helper has one import name."""
    assert [path for path in folders("tests") if not (path / "__init__.py").exists()] == []


def test_the_public_names_are_there() -> None:
    """Each can be imported; no other is promised."""
    assert sorted(tickertape.__all__) == list(tickertape.__all__) == sorted(tickertape._MODULE_OF)
    for name in tickertape.__all__:
        assert getattr(tickertape, name) is not None
    assert set(tickertape.__all__) <= set(dir(tickertape))
    with pytest.raises(AttributeError, match="no_such"):
        _ = tickertape.no_such
