"""The layout of the tree: small folders, and tests that mirror the package.

import-linter checks which module may import which, in ``make lint``.
"""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import tickertape
from tests.support.paths import ROOT

PRODUCT = ("contracts", "producers", "relay", "tickertape")
MOST_MODULES = 15
"""Maximum number of modules in a folder, without its ``__init__.py``."""

MOST_LINES = 350
"""Maximum number of lines in a module."""

MAY_USE_PRIVATE_NAMES = {
    "tickertape/nats/client.py",
    "tickertape/nats/wire/operation_parser.py",
    "tickertape/net/certificates.py",
    "relay/transport/http/protocol.py",
}
"""Files that may use private names of nats-py, ssl and uvicorn, where no public name does the same."""

DOCUMENTED = {"_exit", "_replace", "_asdict", "_fields"}
"""Names of the standard library that are public despite their underscore."""

GROUPS = ("bench", "deploy", "support")
"""Folders of tests/unit that mirror no package."""


def folders(*roots: str) -> Iterator[Path]:
    """Yield folders with modules."""
    for root in roots:
        for path in [ROOT / root, *(ROOT / root).rglob("*")]:
            inside = "node_modules" in path.parts or "typescript" in path.parts
            if path.is_dir() and not inside and list(path.glob("*.py")):
                yield path


@pytest.mark.parametrize("folder", [*folders(*PRODUCT)], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_folder_is_taken_in_at_a_glance(folder: Path) -> None:
    """A folder is a package and has few enough modules to choose from."""
    modules = {path.name for path in folder.glob("*.py")}
    assert "__init__.py" in modules
    assert len(modules) - 1 <= MOST_MODULES


def test_a_module_has_one_concern() -> None:
    """A module that grows beyond the limit has a second concept, which gets a module of its own."""
    modules = [path for folder in folders(*PRODUCT) for path in folder.glob("*.py")]
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in modules}
    assert len(lines) > 100
    assert {path: count for path, count in lines.items() if count > MOST_LINES} == {}


def test_unit_tests_lie_as_the_package_does() -> None:
    """The tests of a module can be found by its path."""
    unit = ROOT / "tests" / "unit"
    for folder in folders("tests/unit"):
        below = folder.relative_to(unit)
        if below.parts and below.parts[0] not in GROUPS:
            assert (ROOT / below).is_dir() or (ROOT / "tickertape" / below).is_dir(), below


def test_tests_are_packages() -> None:
    """Test folders are packages, so that file names may repeat and each helper has one import name."""
    assert [path for path in folders("tests") if not (path / "__init__.py").exists()] == []


def test_the_public_names_are_there() -> None:
    """Every public name can be imported, and there are no others."""
    assert sorted(tickertape.__all__) == list(tickertape.__all__) == sorted(tickertape._MODULE_OF)
    for name in tickertape.__all__:
        assert getattr(tickertape, name) is not None
    assert set(tickertape.__all__) <= set(dir(tickertape))
    with pytest.raises(AttributeError, match="no_such"):
        _ = tickertape.no_such


def private_names(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield the line and name of each private attribute access, and whether it is on ``self``."""
    for node in ast.walk(tree):
        name, owner, line = "", None, 0
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            name, owner, line = node.attr, node.value, node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) > 1:
            named = node.args[1]
            if node.func.id in ("getattr", "setattr", "hasattr") and isinstance(named, ast.Constant):
                name, owner, line = str(named.value), node.args[0], node.lineno
        if name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED:
            yield line, name, isinstance(owner, ast.Name) and owner.id in ("self", "cls")


def defined_names(tree: ast.Module) -> set[str]:
    """Return the private names that a module defines."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def test_private_names_of_third_parties_are_used_in_few_files() -> None:
    """An access on ``self`` may refer to a base class of another module; any other must be to the same
    module.
    """
    sources = {
        str(path.relative_to(ROOT)): ast.parse(path.read_text())
        for root in PRODUCT
        for path in sorted((ROOT / root).rglob("*.py"))
        if "node_modules" not in path.parts
    }
    own = {path: defined_names(tree) for path, tree in sources.items()}
    ours = set().union(*(names for path, names in own.items() if path not in MAY_USE_PRIVATE_NAMES))
    found = [
        f"{path}:{line}: {name}"
        for path, tree in sources.items()
        if path not in MAY_USE_PRIVATE_NAMES
        for line, name, by_itself in private_names(tree)
        if name not in (ours if by_itself else own[path])
    ]
    assert found == []


@pytest.mark.parametrize(
    "line",
    ["client._server_info", "getattr(client, '_transport', None)", "self._server_info", "super()._close()"],
)
def test_a_private_name_is_found(line: str) -> None:
    """The test above detects what it forbids."""
    assert [name[0] for _, name, _ in private_names(ast.parse(line))] == ["_"]
