"""A locked install needs the files whose hashes the lock has, and no other: not even to build a package.

The files are downloaded first. Then the Makefile installs from their folder alone, with no index to turn to,
with the oldest pip that the README allows and, with ``CHAOS=full``, with the newest one.
"""

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.packages import export
from tests.support.paths import ROOT

LOCK = ROOT / "deploy" / "requirements.txt"
FULL = os.environ.get("CHAOS") == "full"


def run(*arguments: str | Path, **env: str) -> str:
    """Run a command with pip's settings of this test only; return its output."""
    kept = {name: value for name, value in os.environ.items() if name in {"HOME", "LANG", "PATH", "TMPDIR"}}
    done = subprocess.run(
        [str(one) for one in arguments], env=kept | env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def download(lock: Path, folder: Path) -> Path:
    """Download what a lock pins, with this machine's settings of pip; return the folder."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]
    subprocess.run([*pip, "--require-hashes", "-d", str(folder), "-r", str(lock)], check=True)
    return folder


def newest_pip() -> str:
    """Return the pin of pip, with its hashes, in the lock of the tests."""
    pin = re.search(r"^pip==.*(\n    --hash=.*)+", (ROOT / "tests" / "requirements.txt").read_text(), re.M)
    assert pin is not None
    return pin[0]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Download the files of the lock."""
    return download(LOCK, tmp_path_factory.mktemp("wheels"))


def test_what_is_downloaded_is_what_is_locked(wheels: Path) -> None:
    """Each file is a wheel and has a hash of the lock."""
    locked = set(re.findall(r"--hash=sha256:([0-9a-f]{64})", LOCK.read_text()))
    for path in wheels.iterdir():
        assert path.suffix == ".whl"
        assert hashlib.sha256(path.read_bytes()).hexdigest() in locked, path.name


@pytest.mark.parametrize("pip", ["oldest", "newest"] if FULL else ["oldest"])
def test_an_install_needs_nothing_else(wheels: Path, tmp_path: Path, pip: str) -> None:
    """The Makefile installs the programs from these files alone, and creates no build environment."""
    lock = tmp_path / "pip.txt"
    lock.write_text(newest_pip() if pip == "newest" else (ROOT / "tests" / "pip.txt").read_text())
    (chosen,) = download(lock, tmp_path / "pip").iterdir()
    tree = export(tmp_path)
    python = tree / ".venv" / "bin" / "python"
    run(sys.executable, "-m", "venv", tree / ".venv")
    run(python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", chosen)
    log = tmp_path / "pip.log"
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels), "PIP_LOG": str(log)}
    run("make", "-C", tree, ".venv/.run-ready", PIP_CONFIG_FILE=os.devnull, **settings)
    assert chosen.name.split("-")[1] in run(python, "-m", "pip", "--version")
    text = log.read_text()
    assert "Installing build dependencies" not in text
    processed = set(re.findall(r"Processing (?:\S*/)?([^/\s]+\.(?:whl|tar\.gz|zip))", text))
    assert processed == {path.name for path in wheels.iterdir()}
    assert run(tree / ".venv" / "bin" / "tickertape", "--version").strip()
    run(python, "-m", "pip", "check")
