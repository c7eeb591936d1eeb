"""Imports point one way: ``contracts <- relay/core <- relay``, and ``contracts <- producers``.

Read from the source, so that an import within a function counts too.
"""

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("contracts", "relay", "producers")
IMPURE = frozenset({"asyncio", "socket", "time", "random", "threading", "selectors", "ssl"})
"""The core has no I/O, no clock and no chance; ``now`` is an argument."""


def _is_command(path: Path) -> bool:
    """Tell whether a module of the relay belongs to the command line, which knows all rooms."""
    return path.stem in ("cli", "check") or path.stem.startswith("demo") or path.stem.endswith("_command")


def _imported(text: str, package: str) -> Iterator[str]:
    """Yield the full names that a module imports: of ``from a import b`` both ``a`` and ``a.b``."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = parts[: len(parts) - node.level + 1] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield source
            yield from (f"{source}.{name.name}" for name in node.names)


def _within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def _modules(*folders: str) -> Iterator[Path]:
    for folder in folders:
        path = ROOT / folder
        yield from sorted(path.rglob("*.py")) if path.is_dir() else [path] if path.exists() else []


def _breaches(paths: Iterator[Path], forbidden: Callable[[str], bool]) -> list[str]:
    found = []
    for path in paths:
        name = path.relative_to(ROOT)
        imported = _imported(path.read_text(encoding="utf-8"), ".".join(name.parts[:-1]))
        found += [f"{name} imports {module}" for module in imported if forbidden(module)]
    return found


def _impure(name: str) -> bool:
    top = name.partition(".")[0]
    if top in ROOMS:
        # 'relay' alone is the parent of what is imported from it.
        return not _within(name, "contracts", "relay.core") and name != "relay"
    return top in IMPURE or (top not in sys.stdlib_module_names and top != "orjson")


@pytest.mark.parametrize("room", ROOMS)
def test_the_rooms_are_there(room: str) -> None:
    """The rules below look at something."""
    assert list(_modules(room))


def test_contracts_import_no_other_room() -> None:
    """The contract stands on its own."""
    assert _breaches(_modules("contracts"), lambda name: _within(name, "relay", "producers")) == []


def test_the_core_is_pure() -> None:
    """The core imports the standard library without I/O and clock, orjson, the contract, and itself."""
    assert _breaches(_modules("relay/core"), _impure) == []


def test_producers_do_not_import_the_relay() -> None:
    """A producer runs where no relay is installed."""
    assert _breaches(_modules("producers"), lambda name: _within(name, "relay")) == []


def test_the_relay_does_not_import_producers() -> None:
    """Only the command line knows both, the demo and the check of a configuration included."""
    relay = (path for path in _modules("relay") if not _is_command(path))
    assert _breaches(relay, lambda name: _within(name, "producers")) == []


def test_the_relay_does_not_import_its_commands() -> None:
    """The command line stands on the relay, not the other way round."""
    commands = {f"relay.{path.stem}" for path in _modules("relay") if _is_command(path)}
    relay = (path for path in _modules("relay") if not _is_command(path))
    assert _breaches(relay, lambda name: _within(name, *commands)) == []


def test_nobody_imports_tests() -> None:
    """Only the command line does, for the bench."""
    bench = [ROOT / "relay" / "cli.py", ROOT / "relay" / "bench_command.py"]
    code = (path for path in _modules(*ROOMS, "tickertape.py") if path not in bench)
    assert _breaches(code, lambda name: _within(name, "tests", "conftest")) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("import relay.app as x, time", ["relay.app", "time"]),
        ("from relay import app", ["relay", "relay.app"]),
        ("from ..app import run", ["relay.app", "relay.app.run"]),
        ("from . import log", ["relay.core", "relay.core.log"]),
        ("def f():\n    if x:\n        import socket", ["socket"]),
        (
            "if TYPE_CHECKING:\n    from producers.shipper import ship",
            ["producers.shipper", "producers.shipper.ship"],
        ),
    ],
)
def test_every_form_of_import_is_seen(text: str, names: list[str]) -> None:
    """Aliases, relative imports, and imports within functions count."""
    assert list(_imported(text, "relay.core")) == names


@pytest.mark.parametrize(
    "name", ["asyncio", "time", "nats.aio", "relay.app", "producers", "ssl.SSLError", "pydantic"]
)
def test_what_the_core_may_not_import(name: str) -> None:
    """The rule refuses I/O, clocks, other rooms and libraries."""
    assert _impure(name)


@pytest.mark.parametrize(
    "name", ["collections.abc", "orjson", "relay", "relay.core.log", "contracts.events", "zlib"]
)
def test_what_the_core_may_import(name: str) -> None:
    """The rule lets pass what computes."""
    assert not _impure(name)
