"""The README's commands about tokens, run in order in an empty folder as a new user would."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, environment
from tests.support.servers.nats_server import free_port

COMMANDS = re.findall(
    r"^tickertape (?:.*\\\n)*.+",
    (ROOT / "README.md").read_text().partition("## Control access")[2].partition("## Monitor")[0],
    re.MULTILINE,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the certificate that the README assumes."""
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    (tmp_path / "key.pem").chmod(0o600)
    return tmp_path


def start(command: str, folder: Path, *more: str) -> "subprocess.Popen[str]":
    """Start a command of the README in a shell."""
    tickertape = f"{sys.executable} -m tickertape"
    line = " ".join([command.replace("tickertape", tickertape, 1), *more])
    return subprocess.Popen(
        ["/bin/sh", "-c", line if ">" in command.split("'")[-1] else f"exec {line}"],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_the_readme_has_the_commands() -> None:
    """The README contains the expected commands in order."""
    done = [" ".join(command.split()[1:3]).partition(" --")[0] for command in COMMANDS]
    assert done == ["token keygen", "token mint", "token inspect", "check", "serve", "tail"]


def test_each_command_works(folder: Path) -> None:
    """Every command works, from creating a key to a client that follows the feed."""
    port = free_port()
    *tokens, check, serve, tail = COMMANDS
    for command in tokens:
        run = start(command, folder)
        output, _ = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, (command, output)
    assert '"verified": true' in output

    ports = ["--port", str(port), "--ops-port", "0", "--nats-port", str(free_port()), "--data-dir", "data"]
    relay = start(serve, folder, *ports)
    client = None
    try:
        assert relay.stdout is not None
        until(relay, "ready")
        options = ["--port", str(port), "--ops-port", "0", "--nats-url", "nats://127.0.0.1:" + ports[5]]
        checked = start(check, folder, *options, "--token-file", "alice.jwt")
        output, _ = checked.communicate(timeout=PATIENCE)
        assert checked.returncode == 0, output
        assert "error" not in output
        assert (
            "--token-file alice.jwt is valid: alice may read gateway.>,log.>, except log.*.payroll" in output
        )
        assert f"0.0.0.0:{port} is in use by a running relay" in output
        assert ":8080/" in tail
        client = start(tail.replace(":8080/", f":{port}/"), folder, "--since 1h")
        event = start(
            """tickertape publish log.error.risk '{"message": "margin call"}'""",
            folder,
            "--nats-url",
            "nats://127.0.0.1:" + ports[5],
        )
        assert event.communicate(timeout=PATIENCE)
        assert event.returncode == 0
        until(client, "margin call")
    finally:
        for process in filter(None, (client, relay)):
            process.terminate()
            process.communicate(timeout=PATIENCE)


def until(process: "subprocess.Popen[str]", text: str) -> None:
    """Read a program's output until a line contains a text."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if text in line.lower():
            return
    raise AssertionError(f"{text!r} not found in {lines}")
