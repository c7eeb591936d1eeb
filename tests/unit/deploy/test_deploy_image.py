"""The image's Dockerfile and contents, checked without a container engine."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.deploy_options import DEPLOY, program, unknown, unknown_variables
from tests.support.paths import ROOT
from tests.support.programs.relay_process import environment

DOCKERFILE = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


def context(folder: Path) -> None:
    """Copy the build context: the files that ``.dockerignore`` admits."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*", "nothing goes in that is not named"
    out = [rule for rule in rules[1:] if not rule.startswith("!")]
    for rule in rules[1:]:
        if not rule.startswith("!"):
            continue
        source, target = ROOT / rule[1:], folder / rule[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        else:
            shutil.copy(source, target)
    for rule in out:
        for position in folder.glob(rule):
            shutil.rmtree(position)


def tracked(*folders: str) -> set[str]:
    """Return the tracked files of these folders."""
    done = subprocess.run(["git", "ls-files", *folders], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_hadolint_finds_no_fault() -> None:
    """hadolint reports nothing, not even style."""
    done = subprocess.run(
        [program("hadolint"), str(DEPLOY / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_what_runs_is_started_without_a_shell_by_a_number() -> None:
    """Commands use the exec form, so that signals arrive; the user is numeric."""
    final = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "\nUSER 10001:10001\n" in final
    assert "\nRUN" not in final
    commands = re.findall(r"\b(CMD|ENTRYPOINT) (.*)", final)
    assert [kind for kind, _ in commands] == ["CMD", "ENTRYPOINT", "CMD"]
    check, entry, start = (json.loads(text) for _, text in commands)
    assert entry == ["tickertape"]
    assert check == ["tickertape", "check", "--live"]
    assert unknown(check[1:]) == unknown(start) == []
    assert re.search(r"^EXPOSE 8080 9464$", final, re.MULTILINE)


def test_variables_belong_to_one_command_only() -> None:
    """No variable is set that means different things to two commands, such as a host."""
    found = set(re.findall(r"\bTICKERTAPE_[A-Z_]+=", DOCKERFILE))
    assert found == {"TICKERTAPE_DATA_DIR=", "TICKERTAPE_STATE_DIR="}
    assert unknown_variables("serve", "TICKERTAPE_DATA_DIR=") == []
    assert unknown_variables("ship", "TICKERTAPE_STATE_DIR=") == []


def test_the_built_package_is_complete(tmp_path: Path) -> None:
    """The build context alone yields the dashboard, the compiled client, the schema and a working command."""
    context(tmp_path / "context")
    assert not list((tmp_path / "context").rglob("node_modules"))
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    pip += ["--no-build-isolation", "--root-user-action=ignore", "--target", str(tmp_path / "installed")]
    subprocess.run([*pip, str(tmp_path / "context")], check=True, capture_output=True)
    installed = {
        str(path.relative_to(tmp_path / "installed")) for path in (tmp_path / "installed").rglob("*.*")
    }
    expected = tracked("relay", "contracts/typescript/dist", "contracts/typescript/src", "contracts/schema")
    assert {f"tickertape/{path}" for path in expected} - installed == set()
    (sbom,) = (tmp_path / "installed").glob("tickertape-*.dist-info/sboms/tickertape.cdx.json")
    assert f"dist-info/sboms/{sbom.name}" in DOCKERFILE
    done = subprocess.run(
        [sys.executable, "-m", "tickertape", "--help"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": str(tmp_path / "installed")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "serve" in done.stdout
