"""Locks contain exact versions with hashes, and no index URL."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

LOCKS = {name: ROOT / name / "requirements.txt" for name in ("deploy", "tests")}
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[([a-z0-9,-]+)\])?==(\S+)( ; [^\\]+)? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def pins(lock: Path) -> dict[str, str]:
    """Return versions by name; fail on a line that is neither a pin, a hash of one, nor a comment."""
    found: dict[str, str] = {}
    hashed = True
    for line in lock.read_text().splitlines():
        if line.lstrip().startswith("#"):
            continue
        if pin := _PIN.match(line):
            assert hashed, f"no hash before {line!r}"
            found[pin[1]], hashed = pin[3], False
        else:
            assert _HASH.match(line), f"{lock.name}: {line!r}"
            hashed = True
    assert hashed
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_pinned_and_hashed(name: str) -> None:
    """A lock contains nothing but pins and hashes."""
    assert len(pins(LOCKS[name])) > 20


def test_what_is_tested_is_what_is_deployed() -> None:
    """Each deployed package is in the tests' lock, at the same version."""
    deployed, tested = pins(LOCKS["deploy"]), pins(LOCKS["tests"])
    assert deployed.items() <= tested.items()


def test_every_dependency_is_locked() -> None:
    """Every declared dependency is locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[\[<>=;]", line)[0] for line in project["dependencies"]}
    assert named <= pins(LOCKS["deploy"]).keys()
    developed = {re.split(r"[\[<>=;]", line)[0] for line in project["optional-dependencies"]["dev"]}
    assert {name.lower() for name in developed} <= pins(LOCKS["tests"]).keys()


def extras(text: str) -> dict[str, frozenset[str]]:
    """Return the extras of each package in a lock."""
    pinned = (pin for line in text.splitlines() if (pin := _PIN.match(line)))
    return {pin[1]: frozenset(pin[2].split(",") if pin[2] else ()) for pin in pinned}


def expected(line: str, given: frozenset[str]) -> Requirement | None:
    """Parse a requirement in a package's metadata for this machine and a set of extras."""
    requested = Requirement(line)
    counts = requested.marker is None or any(
        requested.marker.evaluate({"extra": one}) for one in ("", *given)
    )
    return requested if counts else None


def lacking(text: str, project: list[str]) -> list[str]:
    """Return the extras that a locked package, or the project itself, requires and the lock lacks."""
    locked, found = extras(text), []
    sources = {"the project": (project, frozenset[str]())}
    for name, given in locked.items():
        try:
            sources[name] = (requires(name) or [], given)
        except PackageNotFoundError:
            continue  # for another system or Python version
    for source, (lines, given) in sources.items():
        for requested in filter(None, (expected(line, given) for line in lines)):
            name = canonicalize_name(requested.name)
            without = {canonicalize_name(extra) for extra in requested.extras} - locked.get(name, frozenset())
            if name in locked and without:
                found.append(f"{source} asks for {name}[{','.join(sorted(without))}]")
    return found


def direct(name: str) -> list[str]:
    """Return the project's own requirements from which a lock is made."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    extras = ["relay", "monitor", "ship", "build", *(["dev"] if name == "tests" else [])]
    return [*project["dependencies"], *(one for extra in extras for one in optional[extra])]


@pytest.mark.parametrize("name", LOCKS)
def test_every_extra_that_is_asked_for_is_locked(name: str) -> None:
    """Without this, pip before 24 in hash mode reports an extra as unpinned once a newer release exists."""
    assert lacking(LOCKS[name].read_text(), direct(name)) == []


@pytest.mark.parametrize("name", LOCKS)
def test_an_extra_that_is_lacking_is_found(name: str) -> None:
    """Removing any extra from the lock is reported with the package that requires it."""
    text = LOCKS[name].read_text()
    having = {package: given for package, given in extras(text).items() if given}
    assert having
    for package, given in having.items():
        stripped = text.replace(f"{package}[{','.join(sorted(given))}]==", f"{package}==")
        assert stripped != text
        found = lacking(stripped, direct(name))
        assert any(f"{package}[" in line for line in found), package


def test_ci_begins_with_the_oldest_pip_that_the_readme_allows() -> None:
    """CI uses the pip of the oldest supported Python, which the README names."""
    script = (ROOT / ".ci" / "run").read_text()
    oldest = re.search(r"^PIP=(\S+)$", script, re.MULTILINE)
    assert oldest is not None
    assert f"pip {oldest[1]}" in (ROOT / "README.md").read_text()
    assert script.index("rm -rf .venv") < script.index(
        'pip install -q --disable-pip-version-check "pip==$PIP"'
    )
    assert script.index('"pip==$PIP"') < script.index("\nmake test")
