"""A kernel without IPv6: the defaults work, and an address of IPv6 is rejected with its cause."""

import subprocess
from pathlib import Path

import pytest

from tests.support.isolation import WITHOUT_IPV6
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, command, environment

EXAMPLE = str(ROOT / "deploy" / "gateways.example.yaml")


def test_a_relay_listens_on_localhost(tmp_path: Path) -> None:
    """A relay and its NATS server run, also where ``localhost`` has an address that does not exist."""
    relay = Relay(None, "--host", "localhost", "--data-dir", str(tmp_path), "--nats-port", "0")
    relay.program = [*WITHOUT_IPV6, *command()]
    with relay:
        assert relay.url.startswith("http://127.0.0.1:")
        assert relay.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("serve", "--host", "::", "--insecure", "--nats-url", "nats://127.0.0.1:1"), "--host"),
        (("monitor", "--gateways", EXAMPLE, "--metrics-host", "::", "--metrics-port", "1"), "--metrics-host"),
    ],
)
def test_an_address_of_ipv6_is_rejected(arguments: tuple[str, ...], option: str) -> None:
    """The error names the missing family and an address that exists."""
    done = subprocess.run(
        [*WITHOUT_IPV6, *command(*arguments)], cwd=ROOT, env=environment(), capture_output=True, text=True,
        timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert f"this machine has no IPv6; choose another {option}, such as 0.0.0.0" in done.stderr
