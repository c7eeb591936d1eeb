"""A host with a read-only root, without /tmp and /proc: programs write to the folders of their settings."""

import json
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.isolation import bare_root, needs_namespaces
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.program_output import ProgramOutput
from tests.support.programs.relay_process import Relay, command, environment, eventually

pytestmark = needs_namespaces

GATEWAYS = """
defaults: {interval: 200ms, timeout: 10s, unhealthy_after: 1, healthy_after: 1}
gateways:
  - {id: command, type: bare, probes: [{kind: exec, command: ["true"]}]}
"""


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run a command on the host; return its exit code and its output."""
    done = subprocess.run(
        [*bare_root(folder), *command(*arguments)],
        cwd=ROOT, env=environment(HOME="/missing"), text=True, check=False,
        timeout=PATIENCE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert "Traceback" not in done.stdout
    return done.returncode, done.stdout


def test_every_program_works_with_its_folder(tmp_path: Path) -> None:
    """The programs need no folder but those of their settings, and no information of the kernel."""
    (tmp_path / "gateways.yaml").write_text(GATEWAYS)
    (tmp_path / "app.log").write_text("a line of a file\n")
    relay = Relay(None, "--data-dir", str(tmp_path / "data"), "--nats-port", "0")
    relay.program = [*bare_root(tmp_path), *command()]
    with relay:
        nats = ("--nats-url", relay.nats_url)
        monitor = [
            *bare_root(tmp_path),
            *command("monitor", "--gateways", str(tmp_path / "gateways.yaml"), *nats),
        ]
        with subprocess.Popen(
            monitor, cwd=ROOT, env=environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            output = ProgramOutput(process.stdout)
            eventually(
                lambda: "command: UNKNOWN -> HEALTHY" in "".join(output.lines), "the gateway is healthy"
            )
            process.terminate()
            assert process.wait(PATIENCE) == 0
            output.close()
        state = ("--state-dir", str(tmp_path / "state"))
        free_ports = ("--port", "0", "--ops-port", "0", "--nats-port", "0")
        for arguments in (
            ("publish", "log.info.me", '{"message": "published"}', *nats),
            ("ship", str(tmp_path / "app.log"), "--once", *state, *nats),
            ("check", "--data-dir", str(tmp_path / "data"), *free_ports),
        ):
            code, text = run(tmp_path, *arguments)
            assert code == 0, text
        with urlopen(f"{relay.url}/events?since=1h&subjects=log.>", timeout=PATIENCE) as page:
            found = [one["event"]["message"] for one in json.load(page)["events"]]
        assert found == ["published", "a line of a file"]
        with urlopen(f"{relay.ops_url}/metrics", timeout=PATIENCE) as page:
            metrics = page.read().decode()
        assert "\ntickertape_connections 0" in metrics
        assert "\nprocess_" not in metrics
        assert relay.stop() == 0


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (("serve",), "--data-dir"),
        (("demo",), "--data-dir"),
        (("ship", str(ROOT / "README.md"), "--once", "--nats-url", "nats://127.0.0.1:1"), "--state-dir"),
    ],
)
def test_a_folder_that_cannot_be_written_is_named_with_its_option(
    tmp_path: Path, arguments: tuple[str, ...], option: str
) -> None:
    """A program that has to write names the folder and the option that sets it."""
    code, text = run(tmp_path, *arguments)
    assert code == 1, text
    assert "/missing/.local/" in text
    assert option in text
