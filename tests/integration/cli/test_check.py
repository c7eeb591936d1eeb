"""``tickertape check`` beside a real relay: codes, one JSON object, and a container's health check."""

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.forge import public_pem
from tests.support.programs.relay_process import Relay, eventually, refuse, run
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.check.finding import NAMES

SECRETS = ["hunter-2-of-the-address", "hunter-2-of-hs256-which-is-32-bytes", "hunter-2-token"]


@pytest.fixture
def relay(nats_server: NatsServer) -> Iterator[Relay]:
    """A relay that is ready."""
    with Relay(nats_server.url) as started:
        yield started


def port(url: str) -> str:
    """Port of an address."""
    return url.rpartition(":")[2]


def here(relay: Relay) -> list[str]:
    """Options that name a relay's ports and NATS."""
    ops = ["--ops-port", port(relay.ops_url)]
    return ["--nats-url", relay.nats_url, "--port", port(relay.url), *ops]


def checks(done: "subprocess.CompletedProcess[str]") -> dict[str, dict[str, Any]]:
    """What ``--json`` printed, by name; in its documented shape."""
    said = json.loads(done.stdout)
    assert done.stderr == ""
    assert said.keys() == {"ok", "checks"}
    for one in said["checks"]:
        assert one.keys() == {"name", "state", "text", "hint"}
        assert one["name"] in NAMES
        assert one["state"] in ("ok", "warn", "error")
        assert all(isinstance(text, str) for text in one.values())
    assert said["ok"] is not any(one["state"] == "error" for one in said["checks"])
    assert done.returncode == (0 if said["ok"] else 1)
    return {one["name"]: one for one in said["checks"]}


def test_a_relay_that_runs_is_recognised(relay: Relay) -> None:
    """In lines for people, and as JSON for programs."""
    done = run("check", *here(relay))
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert all(line[:7] in ("ok     ", "warn   ") for line in lines)
    assert any("main port" in line and "a running relay with 0 connections" in line for line in lines)
    assert any("ops port" in line and "reports: ready" in line for line in lines)
    found = checks(run("check", "--json", *here(relay)))
    assert found["main_port"]["state"] == found["ops_port"]["state"] == found["streams"]["state"] == "ok"


def test_a_relay_without_nats_is_told(relay: Relay, nats_server: NatsServer) -> None:
    """It lives, and is not ready."""
    nats_server.stop()
    eventually(lambda: run("check", "--ready", *here(relay)[4:]).returncode == 1, "the relay is not ready")
    found = checks(run("check", "--json", *here(relay)))
    assert found["nats"]["state"] == found["ops_port"]["state"] == "error"
    assert "reports: not ready" in found["ops_port"]["text"]
    assert found["main_port"]["state"] == "ok"


def test_a_port_of_another_program_is_an_error(nats_server: NatsServer) -> None:
    """The exit code says so, too."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = str(other.getsockname()[1])
        found = checks(
            run("check", "--json", "--nats-url", nats_server.url, "--port", taken, "--ops-port", "0")
        )
    assert found["main_port"]["state"] == "error"
    assert f"pid {os.getpid()}" in found["main_port"]["text"]
    assert found["main_port"]["hint"] == "choose another --port"


def test_a_container_asks_whether_it_lives(relay: Relay) -> None:
    """Yes without a word; no, when it hangs or is gone, with one line."""
    ops = port(relay.ops_url)
    for question in ("--live", "--ready"):
        done = run("check", question, "--ops-port", ops)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # The long way round, with an option that the short one does not know, and by the environment.
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


def test_a_relay_that_waits_for_nats_lives_and_is_not_ready(nats_server: NatsServer) -> None:
    """A container must not be killed for what another one lacks."""
    nats_server.stop()
    relay = Relay(nats_server.url)
    try:
        relay.start(ready=False)
        ops = ["--ops-port", port(relay.ops_url)]
        eventually(lambda: run("check", "--live", *ops).returncode == 0, "the relay lives")
        done = run("check", "--ready", *ops)
        assert done.returncode == 1
        assert "reports: not ready" in done.stdout
    finally:
        relay.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--live", "--ready"], "live and ready are mutually exclusive"),
        (["--live", "gateways.yaml"], "file and live are mutually exclusive"),
        (["--json", "--live"], "omit --json"),
        (["--live", "--ops-port", "x"], "--ops-port: "),
        (["--origin", "app.example.com"], "--origin: 'app.example.com' is not an origin"),
    ],
)
def test_bad_usage_is_one_line(arguments: list[str], said: str) -> None:
    """With exit code 2."""
    done = refuse("check", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_page_and_a_token_are_judged(nats_server: NatsServer, tmp_path: Path) -> None:
    """By the settings that are given."""
    (tmp_path / "public.pem").write_bytes(public_pem("EdDSA"))
    (tmp_path / "bad.jwt").write_text(SECRETS[2])
    options = ["--nats-url", nats_server.url, "--port", "0", "--ops-port", "0", "--auth", "jwt"]
    options += ["--jwt-algorithm", "EdDSA", "--jwt-key-file", str(tmp_path / "public.pem")]
    options += ["--token-file", str(tmp_path / "bad.jwt"), "--origin", "https://app.example.com"]
    found = checks(run("check", "--json", *options))
    assert found["token_keys"]["state"] == "ok"
    assert found["token"]["state"] == found["origin"]["state"] == "error"
    found = checks(run("check", "--json", *options, "--allowed-origins", "https://*.example.com"))
    assert found["origin"]["state"] == "ok"


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_no_secret_is_shown(tmp_path: Path, form: tuple[str, ...]) -> None:
    """Not of an address, not a key, not a token, good or bad."""
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
        said = done.stdout + done.stderr
        assert "nats://***@127.0.0.1:1" in said
        assert not any(secret[:20] in said for secret in SECRETS), said
        assert "Traceback" not in said


def test_a_monitors_file_is_a_finding_too(tmp_path: Path) -> None:
    """In the same shape."""
    file = tmp_path / "gateways.yaml"
    file.write_text("gateways:\n  - {id: a, type: x, probes: [{kind: tcp, address: '127.0.0.1:1'}]}\n")
    done = run("check", str(file))
    assert (done.returncode, done.stdout) == (0, f"ok     {file}: no errors\n")
    file.write_text("gateways: 7\n")
    assert run("check", str(file)).stdout.startswith(f"error  {file}")
    assert checks(run("check", "--json", str(file)))["monitor_file"]["state"] == "error"
