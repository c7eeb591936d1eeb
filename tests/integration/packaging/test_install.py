"""The package as users install it: from a wheel, an sdist, an archive of the repository, and in place."""

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.packages import Environment, build_sdist, build_wheel, export
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import environment
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.main import COMMANDS

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES: list[str] = PROJECT["dependencies"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

PACKAGES_OF_EXTRAS = (
    "h11", "jwt", "prometheus_client", "re2", "rich", "shtab", "starlette",
    "uvicorn", "uvloop", "watchfiles", "websockets", "yaml",
)  # fmt: skip

LIBRARY_COMMANDS = {"publish", "schema", "config", "completion"}

THEIRS = """
import asyncio, sys
import contracts, producers, relay
from tickertape import Publisher, SystemLog

assert [one.MINE for one in (contracts, producers, relay)] == ["contracts", "producers", "relay"]

async def main():
    async with Publisher(sys.argv[1]) as publisher:
        ack = await publisher.publish(SystemLog(level="INFO", message="up", source="theirs"))
        print(ack.seq)

asyncio.run(main())
"""
"""A user's program, beside packages with the names of our folders."""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack an archive of the repository."""
    return export(tmp_path_factory.mktemp("export"))


@pytest.fixture(scope="module")
def wheels(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Build a wheel from the tree, and one from its sdist."""
    folder = tmp_path_factory.mktemp("wheels")
    sdist = build_sdist(tree, folder / "sdist")
    return {"tree": build_wheel(tree, folder / "tree"), "sdist": build_wheel(sdist, folder / "again")}


@pytest.fixture(scope="module", params=["wheel", "in place"])
def installed(
    request: pytest.FixtureRequest,
    wheels: dict[str, Path],
    tree: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Environment:
    """Create an environment with the package and all its dependencies."""
    made = Environment(tmp_path_factory.mktemp("environment") / "venv")
    if request.param == "in place":
        made.install(tree, "-e")
    else:
        made.install(wheels["sdist"])
    return made


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """Create a folder with packages that have the names of our folders."""
    for name in ("relay", "producers", "contracts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"MINE = {name!r}\n")
    (tmp_path / "theirs.py").write_text(THEIRS)
    return tmp_path


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with an environment that does not refer to this tree."""
    return subprocess.run(
        [str(one) for one in arguments],
        cwd=cwd,
        env={name: value for name, value in environment().items() if name != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_wheel_has_what_is_tracked(wheels: dict[str, Path], tree: Path) -> None:
    """A wheel contains every module except the tests, in the one import package, and all data files."""
    roots = {"tickertape": "", **dict.fromkeys(("relay", "producers", "contracts"), "tickertape/")}
    modules = {
        f"{prefix}{path.relative_to(tree)}"
        for folder, prefix in roots.items()
        for path in (tree / folder).rglob("*.py")
    }
    for wheel in wheels.values():
        with zipfile.ZipFile(wheel) as packed:
            names = {name for name in packed.namelist() if ".dist-info/" not in name}
        assert {name for name in names if name.endswith(".py")} == modules
        assert {
            "tickertape/py.typed",
            "tickertape/demo/gateways.yaml",
            "tickertape/contracts/schema/events.schema.json",
            "tickertape/contracts/typescript/src/types.ts",
            "tickertape/relay/dashboard/built/index.html",
            "tickertape/relay/dashboard/vendor/uPlot.iife.min.js",
        } <= names
        assert not any("node_modules" in name or "typescript/test" in name for name in names)


def test_an_sdist_has_all_of_the_tree(wheels: dict[str, Path]) -> None:
    """A wheel built from the sdist equals the one built from the tree, file by file."""

    def files(wheel: Path) -> dict[str, bytes]:
        with zipfile.ZipFile(wheel) as packed:
            return {name: packed.read(name) for name in packed.namelist()}

    assert files(wheels["sdist"]) == files(wheels["tree"])


def test_packages_of_the_same_names_are_their_owners(
    installed: Environment, theirs: Path, nats_server: NatsServer
) -> None:
    """The library and the command work in a folder with packages relay, producers and contracts."""
    streams = run(installed.command, "streams", "apply", "--nats-url", nats_server.url, cwd=theirs)
    assert streams.returncode == 0, streams.stderr
    received = run(installed.python, "theirs.py", nats_server.url, cwd=theirs)
    assert (received.returncode, received.stdout, received.stderr) == (0, "1\n", "")
    for program in ([installed.command], [installed.python, "-m", "tickertape"]):
        assert run(*program, "--version", cwd=theirs).stdout == f"{PROJECT['version']}\n"


@pytest.mark.usefixtures("one_demo")
def test_the_demo_runs(installed: Environment, tmp_path: Path) -> None:
    """The demo finds everything that it starts, and exits with 0."""
    received = run(installed.command, "demo", "--seconds", "6", "--data-dir", tmp_path, cwd=tmp_path)
    assert received.returncode == 0, received.stdout + received.stderr
    assert "all processes stopped" in received.stdout
    assert "has ended" not in received.stdout


def test_the_library_alone(wheels: dict[str, Path], theirs: Path) -> None:
    """Without an extra the library and some commands work; each other one names the extra that it needs."""
    made = Environment(theirs / "venv", DEPENDENCIES)
    made.install(wheels["tree"])
    public = "from tickertape import Publisher, SyncPublisher, TickertapeHandler"
    received = run(made.python, "-c", public, cwd=theirs)
    assert (received.returncode, received.stderr) == (0, "")
    received = run(made.python, "-c", "from tickertape import tickertape_app", cwd=theirs)
    assert received.returncode == 1
    assert "pip install 'tickertape[relay]'" in received.stderr
    for option in ("--help", "--version"):
        assert run(made.command, option, cwd=theirs).returncode == 0
    for command in LIBRARY_COMMANDS:
        assert run(made.command, command, "--help", cwd=theirs).returncode == 0
    expected = dict.fromkeys(COMMANDS.keys() - LIBRARY_COMMANDS, "relay")
    expected |= {"demo": "all", "monitor": "monitor", "ship": "ship"}
    for command, extra in expected.items():
        received = run(made.command, command, cwd=theirs)
        assert received.returncode == 1
        assert received.stderr.startswith(f"tickertape {command}: ")
        assert received.stderr.endswith(f" is not installed; pip install 'tickertape[{extra}]'\n")
        assert received.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("extra", "command", "modules"),
    [
        (
            "relay",
            ["serve", "--port", "-1"],
            "tickertape.relay.server, tickertape.relay.asgi.app",
        ),
        ("monitor", ["monitor"], "tickertape.cli.monitor"),
        ("ship", ["ship", "--dry-run", "--once", "lines.log"], "tickertape.cli.ship"),
    ],
)
def test_an_extra_is_all_that_its_command_needs(
    wheels: dict[str, Path], tmp_path: Path, extra: str, command: list[str], modules: str
) -> None:
    """An extra is sufficient for its command: help works, and so do its errors or its task."""
    made = Environment(tmp_path / "venv", [*DEPENDENCIES, *EXTRAS[extra]])
    made.install(wheels["tree"])
    (tmp_path / "lines.log").write_text("a line\n")
    received = run(made.command, command[0], "--help", cwd=tmp_path)
    assert received.returncode == 0, received.stderr
    received = run(made.command, *command, cwd=tmp_path)
    assert "is not installed" not in received.stderr
    assert "Traceback" not in received.stderr
    received = run(made.python, "-c", f"import {modules}", cwd=tmp_path)
    assert (received.returncode, received.stderr) == (0, "")


@pytest.mark.parametrize("name", ["relay", "producers", "contracts"])
def test_a_root_folder_cannot_be_imported_by_its_own_name(name: str) -> None:
    """Importing a folder at the root by its own name fails with the name to import."""
    received = run(sys.executable, "-c", f"import {name}", cwd=ROOT)
    assert received.returncode == 1
    assert f"ImportError: this folder is imported as tickertape.{name}" in received.stderr


def test_importing_costs_what_is_used() -> None:
    """Importing the package imports nothing else; the publisher imports only the library's dependencies."""
    code = (
        "import sys, tickertape; first = set(sys.modules); from tickertape import Publisher;"
        "print(sorted({one.partition('.')[0] for one in first} & {'nats', 'pydantic', 'orjson', 'asyncio'}),"
        f"sorted({{one.partition('.')[0] for one in sys.modules}} & {set(PACKAGES_OF_EXTRAS)!r}))"
    )
    received = run(sys.executable, "-c", code, cwd=Path(os.sep))
    assert (received.stdout, received.stderr) == ("[] []\n", "")
