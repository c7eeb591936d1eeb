"""A host without IPv4: every program finds the others by its defaults."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.isolation import ipv6_only, needs_namespaces
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import Relay, command, environment, eventually

pytestmark = needs_namespaces

# Probes of each kind that has an address.
GATEWAYS = """
defaults: {interval: 200ms, timeout: 10s, unhealthy_after: 1, healthy_after: 1}
gateways:
  - {id: tcp, type: v6, probes: [{kind: tcp, address: "[::1]:8080"}]}
  - {id: name, type: v6, probes: [{kind: tcp, address: "localhost:8080"}]}
  - {id: http, type: v6, probes: [{kind: http, url: "http://[::1]:9464/livez"}]}
  - {id: websocket, type: v6, probes: [{kind: websocket, url: "ws://[::1]:8080/ws", expect: welcome}]}
  - {id: closed, type: v6, probes: [{kind: fix, address: "[::1]:1", sender_comp_id: A, target_comp_id: B}]}
"""


@pytest.fixture
def network(tmp_path: Path) -> Iterator[list[str]]:
    """Return the beginning of a command line that runs a program in a network with IPv6 only."""
    with ipv6_only(tmp_path / "hosts") as prefix:
        yield prefix


def tickertape(network: list[str], *arguments: str) -> str:
    """Run a command that exits by itself, expect success, and return its output."""
    done = subprocess.run(
        [*network, *command(*arguments)], cwd=ROOT, env=environment(), text=True, timeout=PATIENCE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout


@contextmanager
def running(network: list[str], *arguments: str) -> Iterator[ProgramOutput]:
    """Run a command until the end of the block."""
    with subprocess.Popen(
        [*network, *command(*arguments)], cwd=ROOT, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        output = ProgramOutput(process.stdout)
        try:
            yield output
        finally:
            process.terminate()
            process.wait(PATIENCE)
            output.close()


def healthy(lines: list[str]) -> set[str]:
    """Return the subjects that some line reports as healthy."""
    events = [json.loads(line) for line in lines if line.startswith("{")]
    return {one["subject"] for one in events if one["event"].get("current_status") == "HEALTHY"}


def test_every_program_works_with_its_defaults(network: list[str], tmp_path: Path) -> None:
    """Relay, embedded NATS server, producers and commands meet on ::1 without any option."""
    (tmp_path / "gateways.yaml").write_text(GATEWAYS)
    (tmp_path / "app.log").write_text("a line of a file\n")
    relay = Relay(None, "--data-dir", str(tmp_path / "data"))
    relay.program = [*network, *command()]
    relay.url, relay.ops_url = "http://[::1]:8080", "http://[::1]:9464"  # the default ports
    monitor = ("monitor", "--gateways", str(tmp_path / "gateways.yaml"), "--fix-state-dir", str(tmp_path))
    with relay, running(network, *monitor):
        assert relay.nats_url == "nats://[::1]:4222"
        tickertape(network, "publish", "log.info.me", '{"message": "published"}')
        tickertape(
            network, "ship", str(tmp_path / "app.log"), "--once", "--state-dir", str(tmp_path / "state")
        )
        assert "EVENTS" in tickertape(network, "streams")
        assert tickertape(network, "check", "--ready") == ""
        assert "[::1]:9464 is in use by a running relay" in tickertape(network, "check")
        expected = ["published", "a line of a file", *(f'"{status}"' for status in ("HEALTHY", "UNHEALTHY"))]
        with running(network, "tail", "--json", "--since", "1h") as output:
            eventually(lambda: all(text in "".join(output.lines) for text in expected), str(expected))
            wanted = {f"gateway.status.v6.{name}" for name in ("tcp", "name", "http", "websocket")}
            eventually(lambda: wanted <= healthy(output.lines), f"{wanted} are healthy")
        assert relay.stop() == 0


def test_workers_listen_on_all_addresses(network: list[str], tmp_path: Path) -> None:
    """Workers share a port of IPv6, too."""
    relay = Relay(None, "--data-dir", str(tmp_path / "data"), "--workers", "2", "--host", "::", "--insecure")
    relay.program = [*network, *command()]
    with relay:
        assert relay.url.startswith("http://[::")
        assert tickertape(network, "check", "--ready", "--ops-port", relay.ops_url.rpartition(":")[2]) == ""
        assert relay.stop() == 0
