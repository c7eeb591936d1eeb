"""What is installed is what was locked: exact versions with hashes, and no address of any index."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = {name: ROOT / name / "requirements.txt" for name in ("deploy", "tests")}
_PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)(?:\[[a-z0-9,-]+\])?==(\S+)( ; [^\\]+)? \\$")
_HASH = re.compile(r"^    --hash=sha256:[0-9a-f]{64}( \\)?$")


def pins(lock: Path) -> dict[str, str]:
    """Versions by name; fails on a line that is neither a pin, a hash of one, nor a comment."""
    found: dict[str, str] = {}
    hashed = True
    for line in lock.read_text().splitlines():
        if line.lstrip().startswith("#"):
            continue
        if pin := _PIN.match(line):
            assert hashed, f"no hash before {line!r}"
            found[pin[1]], hashed = pin[2], False
        else:
            assert _HASH.match(line), f"{lock.name}: {line!r}"
            hashed = True
    assert hashed
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_everything_is_pinned_and_hashed(name: str) -> None:
    """Nothing else stands in a lock."""
    assert len(pins(LOCKS[name])) > 20


def test_what_is_tested_is_what_is_deployed() -> None:
    """Each package that is deployed is in the tests' lock, at the same version."""
    deployed, tested = pins(LOCKS["deploy"]), pins(LOCKS["tests"])
    assert deployed.items() <= tested.items()


def test_every_dependency_is_locked() -> None:
    """The locks are newer than the list of dependencies."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {re.split(r"[\[<>=;]", line)[0] for line in project["dependencies"]}
    assert named <= pins(LOCKS["deploy"]).keys()
    developed = {re.split(r"[\[<>=;]", line)[0] for line in project["optional-dependencies"]["dev"]}
    assert {name.lower() for name in developed} <= pins(LOCKS["tests"]).keys()
