"""The systemd units, checked by systemd itself."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tickertape.relay.settings import RelaySettings

from tests.support.browser.browser_desk import missing
from tests.support.deploy_options import DEPLOY, unknown, unknown_variables

UNITS = {path.name: path.read_text(encoding="utf-8") for path in (DEPLOY / "systemd").iterdir()}
NAMES = sorted(UNITS)
PROGRAM = "/opt/tickertape/bin/tickertape"
EXPOSURE = 2.0
"""Maximum exposure on systemd's scale from 0 to 10; a service without hardening has 9.2."""


def analyze(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on the units, with a program that exists."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        missing("needs systemd-analyze; 'apt-get install systemd' brings it")
    for name, text in UNITS.items():
        (folder / name.replace("@.", "@app.")).write_text(text.replace(PROGRAM, "/bin/true"))
    return subprocess.run([tool, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def command(text: str) -> list[str]:
    """Return the arguments of a unit's command."""
    found = re.search(r"^ExecStart=((?:.*\\\n)*.*)", text, re.MULTILINE)
    assert found is not None
    program, *line = found[1].replace("\\\n", " ").split()
    assert program == PROGRAM
    return line


def seconds(text: str) -> int:
    """Return the stop timeout of a unit in seconds."""
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_there_is_a_unit_for_each_program() -> None:
    """There is one unit per program, and no other file."""
    assert NAMES == ["tickertape-monitor.service", "tickertape-relay.service", "tickertape-shipper@.service"]


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """systemd reports nothing, not even a warning."""
    done = analyze(tmp_path, "verify", "--man=no", *(f"./{name.replace('@.', '@app.')}" for name in NAMES))
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_little_is_exposed(name: str, tmp_path: Path) -> None:
    """Exposure is low on systemd's scale."""
    done = analyze(tmp_path, "security", "--offline=true", "--no-pager", f"./{name.replace('@.', '@app.')}")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE


@pytest.mark.parametrize("name", NAMES)
def test_every_option_and_variable_exists(name: str) -> None:
    """The options, and the variables in the comments, exist."""
    line = command(UNITS[name])
    assert unknown(line) == []
    assert unknown_variables(line[0], UNITS[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_credentials(name: str) -> None:
    """Secrets are systemd credentials, never on a command line or in the environment."""
    text = UNITS[name]
    assert "--nats-password-file=%d/nats_password" in command(text)
    assert re.search(r"^LoadCredential=nats_password:/etc/tickertape/secrets/\w+$", text, re.MULTILINE)
    assert not re.search(r"_(PASSWORD|TOKEN|KEY)=", text)


def test_the_relay_has_time_to_leave() -> None:
    """The stop timeout is longer than the drain."""
    text = UNITS["tickertape-relay.service"]
    drain = [part for part in command(text) if part.startswith("--drain=")]
    given = float(drain[0].partition("=")[2]) if drain else RelaySettings.model_fields["drain"].default
    assert seconds(text) >= given + 10


@pytest.mark.parametrize("program", ["relay", "monitor"])
def test_reload_is_a_signal(program: str) -> None:
    """Programs that handle SIGHUP are reloaded with it."""
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in UNITS[f"tickertape-{program}.service"]
