"""Completion of command lines, in the shells that are installed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tickertape.cli.main import COMMANDS, main

BASH = """
source {script}
complete_line() {{
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _shtab_tickertape; printf '%s\\n' "${{COMPREPLY[@]}}"
}}
complete_line {line}
"""


@pytest.fixture
def script(request: pytest.FixtureRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """Return the script for a shell."""
    assert main(["completion", request.param]) == 0
    path = tmp_path / "_tickertape"
    path.write_text(capsys.readouterr().out)
    return path


@pytest.mark.parametrize("script", ["bash"], indirect=True)
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("tickertape ''", set(COMMANDS)),
        ("tickertape se", {"serve"}),
        ("tickertape serve --nats-pa", {"--nats-password", "--nats-password-file"}),
        ("tickertape serve --insecure --no-in", {"--no-insecure"}),
        ("tickertape serve --auth ''", {"none", "jwt", "certificate"}),
        ("tickertape streams ''", {"show", "apply", "rejected", "audit"}),
        ("tickertape ship /etc/hostn", {"/etc/hostname"}),
        ("tickertape serve --config /etc/hostn", {"/etc/hostname"}),
    ],
)
def test_bash(script: Path, line: str, words: set[str]) -> None:
    """bash completes commands, options, choices and paths."""
    text = BASH.format(script=script, line=line)
    done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert words <= set(done.stdout.split())
    assert "''" in line or words == set(done.stdout.split())


@pytest.mark.parametrize(
    ("script", "arguments"),
    [("zsh", ["-n"]), ("fish", ["--no-execute"]), ("tcsh", ["-n"])],
    indirect=["script"],
)
def test_other_shells_accept_the_script(
    script: Path, arguments: list[str], request: pytest.FixtureRequest
) -> None:
    """The scripts for other shells are valid, where these are installed."""
    shell = request.node.callspec.params["script"]
    text = script.read_text()
    assert all(name in text for name in COMMANDS)
    assert "--nats-password-file" in text or "nats-password-file" in text
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([program, *arguments, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize("script", ["fish"], indirect=True)
def test_fish(script: Path) -> None:
    """fish completes options."""
    line = f"source {script}; complete --do-complete 'tickertape serve --nats-pass'"
    done = subprocess.run(["fish", "--no-config", "-c", line], capture_output=True, text=True, check=True)
    assert {word.split("\t")[0] for word in done.stdout.splitlines()} == {
        "--nats-password",
        "--nats-password-file",
    }
