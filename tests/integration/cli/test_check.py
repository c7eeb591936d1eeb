"""``tickertape check`` with a real relay: exit codes, JSON output, and the health check of a container."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from tests.support.clients.forge import public_pem
from tests.support.programs.relay_process import Relay, eventually, expect_rejection, run
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.check.finding import Name

SECRETS = ["hunter-2-of-the-address", "hunter-2-of-hs256-which-is-32-bytes", "hunter-2-token"]


@pytest.fixture
def relay(nats_server: NatsServer) -> Iterator[Relay]:
    """Run a ready relay."""
    with Relay(nats_server.url) as started:
        yield started


def port(url: str) -> str:
    """Return the port of a URL."""
    return url.rpartition(":")[2]


def relay_options(relay: Relay) -> list[str]:
    """Return the options that name a relay's ports and NATS server."""
    ops = ["--ops-port", port(relay.ops_url)]
    return ["--nats-url", relay.nats_url, "--port", port(relay.url), *ops]


def findings(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, Any]]:
    """Check the shape of ``--json`` output and return the findings by name."""
    output = json.loads(done.stdout)
    assert done.stderr == ""
    assert output.keys() == {"ok", "checks"}
    for finding in output["checks"]:
        assert finding.keys() == {"name", "state", "text", "hint"}
        assert finding["name"] in get_args(Name)
        assert finding["state"] in ("ok", "warn", "error")
        assert all(isinstance(text, str) for text in finding.values())
    assert output["ok"] is not any(finding["state"] == "error" for finding in output["checks"])
    assert done.returncode == (0 if output["ok"] else 1)
    return {finding["name"]: finding for finding in output["checks"]}


def test_a_running_relay_is_recognized(relay: Relay) -> None:
    """A running relay is recognized, both in the text output and as JSON."""
    done = run("check", *relay_options(relay))
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line[:7] in ("ok     ", "warn   ") for line in lines)
    assert any("main port" in line and "a running relay with 0 connections" in line for line in lines)
    assert any("ops port" in line and "reports: ready" in line for line in lines)
    found = findings(run("check", "--json", *relay_options(relay)))
    assert found["main_port"]["state"] == found["ops_port"]["state"] == found["streams"]["state"] == "ok"


def test_a_relay_without_nats_is_not_ready(relay: Relay, nats_server: NatsServer) -> None:
    """A relay that has lost NATS is reported as alive but not ready."""
    nats_server.stop()
    eventually(
        lambda: run("check", "--ready", *relay_options(relay)[4:]).returncode == 1, "the relay is not ready"
    )
    found = findings(run("check", "--json", *relay_options(relay)))
    assert found["nats"]["state"] == found["ops_port"]["state"] == "error"
    assert "reports: not ready" in found["ops_port"]["text"]
    assert found["main_port"]["state"] == "ok"


def test_a_port_of_another_program_is_an_error(nats_server: NatsServer) -> None:
    """A port held by another program is an error that names its pid, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        found = findings(
            run("check", "--json", "--nats-url", nats_server.url, "--port", taken, "--ops-port", "0")
        )
    assert found["main_port"]["state"] == "error"
    assert f"pid {os.getpid()}" in found["main_port"]["text"]
    assert found["main_port"]["hint"] == "choose another --port"


def test_live_and_ready_serve_as_health_checks_of_a_container(relay: Relay) -> None:
    """``--live`` and ``--ready`` print nothing if the relay answers, one line if it hangs or has ended."""
    ops = port(relay.ops_url)
    for question in ("--live", "--ready"):
        done = run("check", question, "--ops-port", ops)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # An option that the fast path does not know takes the slow path; the environment works on both.
    assert run("check", "--live", "--auth", "none", "--ops-port", ops).returncode == 0
    assert run("check", "--live", TICKERTAPE_OPS_PORT=ops).returncode == 0
    relay.signal(signal.SIGSTOP)
    done = run("check", "--live", "--ops-port", ops)
    assert done.returncode == 1
    assert "no response within 2 s" in done.stdout
    relay.kill()
    done = run("check", "--live", "--ops-port", ops)
    assert (done.returncode, done.stdout.count("\n"), done.stderr) == (1, 1, "")
    assert "connection refused" in done.stdout


def test_a_relay_waiting_for_nats_is_live_but_not_ready(nats_server: NatsServer) -> None:
    """A relay waiting for NATS is alive but not ready, so its container is not killed for NATS's outage."""
    nats_server.stop()
    relay = Relay(nats_server.url)
    try:
        relay.start(ready=False)
        ops = ["--ops-port", port(relay.ops_url)]
        eventually(lambda: run("check", "--live", *ops).returncode == 0, "the relay is live")
        done = run("check", "--ready", *ops)
        assert done.returncode == 1
        assert "reports: not ready" in done.stdout
    finally:
        relay.close()


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["--live", "--ready"], "live and ready are mutually exclusive"),
        (["--live", "gateways.yaml"], "file and live are mutually exclusive"),
        (["--json", "--live"], "omit --json"),
        (["--live", "--ops-port", "x"], "--ops-port: "),
        (["--origin", "app.example.com"], "--origin: 'app.example.com' is not an origin"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], output: str) -> None:
    """A usage error prints one line and ends with exit code 2."""
    done = expect_rejection("check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert output in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_origin_and_a_token_are_checked(nats_server: NatsServer, tmp_path: Path) -> None:
    """``--origin`` and ``--token-file`` are checked against the given settings."""
    (tmp_path / "public.pem").write_bytes(public_pem("EdDSA"))
    (tmp_path / "bad.jwt").write_text(SECRETS[2])
    options = ["--nats-url", nats_server.url, "--port", "0", "--ops-port", "0", "--auth", "jwt"]
    options += ["--jwt-algorithm", "EdDSA", "--jwt-key-file", str(tmp_path / "public.pem")]
    options += ["--token-file", str(tmp_path / "bad.jwt"), "--origin", "https://app.example.com"]
    found = findings(run("check", "--json", *options))
    assert found["token_keys"]["state"] == "ok"
    assert found["token"]["state"] == found["origin"]["state"] == "error"
    found = findings(run("check", "--json", *options, "--allowed-origins", "https://*.example.com"))
    assert found["origin"]["state"] == "ok"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_shown(tmp_path: Path, form: tuple[str, ...]) -> None:
    """No URL, key or token, valid or not, reveals its secret in the output."""
    (tmp_path / "one.jwt").write_text(SECRETS[2])
    env = {
        "TICKERTAPE_NATS_URL": f"nats://u:{SECRETS[0]}@127.0.0.1:1,nats://u:{SECRETS[0]}@127.0.0.1:2",
        "TICKERTAPE_AUTH": "jwt",
        "TICKERTAPE_JWT_ALGORITHM": "HS256",
        "TICKERTAPE_JWT_KEY": SECRETS[1],
        "TICKERTAPE_PORT": "0",
        "TICKERTAPE_OPS_PORT": "0",
    }
    for more in (env, {**env, "TICKERTAPE_JWT_KEY": SECRETS[1][:20]}):
        done = run("check", *form, "--token-file", str(tmp_path / "one.jwt"), **more)
        assert done.returncode == 1
        output = done.stdout + done.stderr
        assert "nats://***@127.0.0.1:1" in output
        assert not any(secret[:20] in output for secret in SECRETS), output
        assert "Traceback" not in output


def test_a_monitor_file_is_a_finding(tmp_path: Path) -> None:
    """A monitor file is checked with the same output as everything else."""
    file = tmp_path / "gateways.yaml"
    file.write_text("gateways:\n  - {id: a, type: x, probes: [{kind: tcp, address: '127.0.0.1:1'}]}\n")
    done = run("check", str(file))
    assert (done.returncode, done.stdout) == (0, f"ok     {file}: no errors\n")
    file.write_text("gateways: 7\n")
    assert run("check", str(file)).stdout.startswith(f"error  {file}")
    assert findings(run("check", "--json", str(file)))["monitor_file"]["state"] == "error"
    probe = "{kind: tls, address: '127.0.0.1:1', skip_verify: true}"
    file.write_text(f"gateways: [{{id: a, type: b, probes: [{probe}]}}]")
    finding = findings(run("check", "--json", str(file)))["monitor_file"]
    assert (finding["state"], finding["hint"]) == ("warn", "set 'ca' and 'server_name' in its place")
