"""The package as its users install it: built from this tree, in separate environments, without an index.

The dependencies of an environment are linked from the one that runs the tests: all of them, or only those
that the package requires.
"""

import subprocess
import sys
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from tests.support.paths import ROOT
from tests.support.servers.nats_server import find_binary

_PIP: Final = ("-m", "pip", "-q", "--disable-pip-version-check")


def export(folder: Path) -> Path:
    """Export this tree like an archive of the repository: tracked files in their current state, and no
    others.
    """
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    archive = folder / "tree.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for name in names.stdout.decode().split("\0"):
            if name and (ROOT / name).is_file():
                packed.write(ROOT / name, name)
    tree = folder / "tree"
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tree)
    return tree


def build_wheel(source: Path, folder: Path) -> Path:
    """Build a wheel from a tree or an sdist; return its path."""
    folder.mkdir(exist_ok=True)
    run_python([*_PIP, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def build_sdist(tree: Path, folder: Path) -> Path:
    """Build an sdist from a tree; return its path."""
    folder.mkdir(exist_ok=True)
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(folder)!r})"
    run_python(["-c", code], cwd=tree)
    (sdist,) = folder.glob("*.tar.gz")
    return sdist


class Environment:
    """A virtual environment.

    Args:
        folder: folder to create it in.
        only: requirements that, with their dependencies, are all that it contains; None links everything that
            the tests have.
    """

    def __init__(self, folder: Path, only: list[str] | None = None) -> None:
        run_python(["-m", "venv", "--without-pip", str(folder)])
        self.python = folder / "bin" / "python"
        self.command = folder / "bin" / "tickertape"
        if (server := find_binary()) is not None:
            (folder / "bin" / "nats-server").symlink_to(server)
        self._site = next((folder / "lib").glob("python3*/site-packages"))
        if only is None:
            # Python ignores a .pth file in a folder that another .pth file adds, so this tree stays out.
            (self._site / "tests.pth").write_text(f"{_site_packages()}\n")
        else:
            for name in needed(only):
                self._link(distribution(name))

    def install(self, what: Path, *options: str) -> None:
        """Install a wheel, or a tree with ``-e``, without its dependencies."""
        pip = [*_PIP, "--python", str(self.python), "install", "--no-index", "--no-deps"]
        run_python([*pip, "--no-build-isolation", *options, str(what)])

    def _link(self, dist: Distribution) -> None:
        for name in {file.parts[0] for file in dist.files or () if file.parts[0] != ".."}:
            target = self._site / name
            if name != "__pycache__" and not target.exists():
                target.symlink_to(dist.locate_file(name))  # type: ignore[arg-type]


def needed(requirements: list[str]) -> set[str]:
    """Return the names of the transitive dependencies of requirements."""
    found: dict[tuple[str, str], None] = {}
    waiting = [Requirement(one) for one in requirements]
    while waiting:
        one = waiting.pop()
        for extra in ("", *one.extras):
            if (one.name, extra) in found:
                continue
            found[one.name, extra] = None
            for text in distribution(one.name).requires or ():
                more = Requirement(text)
                if more.marker is None or more.marker.evaluate({"extra": extra}):
                    waiting.append(more)
    return {name for name, _ in found}


def run_python(arguments: list[str], cwd: Path | None = None) -> None:
    """Run this Python; on failure raise an error with its output."""
    done = subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _site_packages() -> Path:
    return Path(str(distribution("pytest").locate_file("")))


__all__ = ["Environment", "build_sdist", "build_wheel", "export", "needed"]
