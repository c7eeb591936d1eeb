"""The systemd units, checked by systemd itself."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tickertape.relay.drain import END_GRACE
from tickertape.relay.settings import ServeSettings
from tickertape.relay.workers.supervisor import STOP_GRACE as WORKERS_GRACE

from tests.support.browser.browser_desk import missing
from tests.support.deploy_options import DEPLOY, unknown, unknown_variables
from tickertape.cli.main import load_model
from tickertape.config.resolve import Sources, find_values
from tickertape.process.signals import STOP_GRACE

FOLDER = DEPLOY / "systemd"
UNITS = {
    str(path.relative_to(FOLDER)): path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.service")
}
NAMES = sorted(UNITS)
SYSTEM_NAMES = [name for name in NAMES if "/" not in name]
USER_NAMES = [name for name in NAMES if name.startswith("user/")]
PROGRAMS = ("/opt/tickertape/bin/tickertape", "%h/.local/bin/tickertape")
EXPOSURE = 2.0
"""Maximum exposure on systemd's scale from 0 to 10; a service without hardening has 9.2."""


def analyze(folder: Path, names: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run systemd-analyze on some units, with a program that exists."""
    tool = shutil.which("systemd-analyze")
    if tool is None:
        missing("needs systemd-analyze; 'apt-get install systemd' brings it")
    paths = [folder / Path(name).name.replace("@.", "@app.") for name in names]
    for path, name in zip(paths, names, strict=True):
        path.write_text(re.sub(r"(?<=^ExecStart=)\S+", "/bin/true", UNITS[name], flags=re.MULTILINE))
    environment = {**os.environ, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder)}
    return subprocess.run(
        [tool, *arguments, *map(str, paths)], env=environment, capture_output=True, text=True, check=False
    )


def command(text: str) -> list[str]:
    """Return the arguments of a unit's command."""
    found = re.search(r"^ExecStart=((?:.*\\\n)*.*)", text, re.MULTILINE)
    assert found is not None
    program, *line = found[1].replace("\\\n", " ").split()
    assert program in PROGRAMS
    return line


def seconds(text: str) -> int:
    """Return the stop timeout of a unit in seconds."""
    found = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert found is not None
    return int(found[1])


def test_there_is_a_unit_for_each_program() -> None:
    """There is one unit per program for the system and one for a user, and no other file."""
    expected = ["tickertape-monitor.service", "tickertape-relay.service", "tickertape-shipper@.service"]
    assert [*expected, *(f"user/{name}" for name in expected)] == NAMES
    assert len([path for path in FOLDER.rglob("*") if path.is_file()]) == len(NAMES)


@pytest.mark.parametrize(("scope", "names"), [("--system", SYSTEM_NAMES), ("--user", USER_NAMES)])
def test_systemd_finds_no_fault(scope: str, names: list[str], tmp_path: Path) -> None:
    """systemd reports nothing, not even a warning."""
    done = analyze(tmp_path, names, scope, "verify", "--man=no")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", SYSTEM_NAMES)
def test_little_is_exposed(name: str, tmp_path: Path) -> None:
    """Exposure is low on systemd's scale."""
    done = analyze(tmp_path, [name], "security", "--offline=true", "--no-pager")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE


@pytest.mark.parametrize("name", USER_NAMES)
def test_units_of_a_user_need_no_privilege(name: str) -> None:
    """Every file is in a folder of the user, and nothing is set that only the system's manager can do."""
    settings = [line for line in UNITS[name].splitlines() if not line.startswith("#")]
    absolute = {word for line in settings for word in re.findall(r"(?<![\w%])/[a-z]\S*", line)}
    assert absolute <= {"/bin/kill"}
    keys = {line.partition("=")[0] for line in settings}
    system = {line.partition("=")[0] for line in UNITS[name.removeprefix("user/")].splitlines()}
    assert keys <= system
    privileged = r"(Protect|Private)\w+|DynamicUser|User|\w*Groups?|\w*Capabilit\w+|RemoveIPC"
    assert not {key for key in keys if re.fullmatch(privileged, key)}
    assert "WantedBy=default.target" in settings
    assert "network-online.target" not in UNITS[name]  # a unit of the system


@pytest.mark.parametrize("name", USER_NAMES)
def test_units_of_a_user_run_the_same_command(name: str) -> None:
    """Both units of a program have the same options, apart from the folders."""
    same = command(UNITS[name.removeprefix("user/")])
    folders = {"/etc/": "%E/", "/var/lib/": "%S/"}
    for before, now in folders.items():
        same = [word.replace(before, now) for word in same]
    assert command(UNITS[name]) == same


@pytest.mark.parametrize("name", NAMES)
def test_every_option_and_variable_exists(name: str) -> None:
    """The options, and the variables in the comments, exist."""
    line = command(UNITS[name])
    assert unknown(line) == []
    assert unknown_variables(line[0], UNITS[name]) == []


@pytest.mark.parametrize("name", NAMES)
def test_secrets_are_credentials(name: str, tmp_path: Path) -> None:
    """Secrets are systemd credentials, never on a command line or in the environment."""
    text = UNITS[name]
    model = load_model(command(text)[0])
    credential = tmp_path / "nats_password"
    credential.write_text("x\n")
    found = find_values(model, {}, Sources({"CREDENTIALS_DIRECTORY": str(tmp_path)}))
    assert {name: value.value for name, value in found.items()} == {"nats_password_file": str(credential)}
    assert not any("password" in word for word in command(text))
    assert re.search(r"^LoadCredential=nats_password:(/etc|%E)/tickertape/secrets/\w+$", text, re.MULTILINE)
    assert not re.search(r"_(PASSWORD|TOKEN|KEY)=", text)


@pytest.mark.parametrize("folder", ["", "user/"])
def test_the_programs_have_time_to_end(folder: str) -> None:
    """systemd kills no program that still ends by itself, and no command of a probe before the monitor."""
    text = UNITS[f"{folder}tickertape-relay.service"]
    drain = [part for part in command(text) if part.startswith("--drain=")]
    assert drain
    delay = ServeSettings.model_fields["drain_delay"].default
    assert seconds(text) > delay + float(drain[0].partition("=")[2]) + 2 * WORKERS_GRACE + END_GRACE
    for name in ("tickertape-monitor.service", "tickertape-shipper@.service"):
        assert seconds(UNITS[folder + name]) > STOP_GRACE
    for name in ("tickertape-monitor.service", "tickertape-relay.service"):
        assert "\nKillMode=mixed\n" in UNITS[folder + name]


@pytest.mark.parametrize("program", ["relay", "monitor", "user/relay", "user/monitor"])
def test_reload_is_a_signal(program: str) -> None:
    """Programs that handle SIGHUP are reloaded with it."""
    folder, _, name = program.rpartition("/")
    unit = UNITS[str(Path(folder) / f"tickertape-{name}.service")]
    assert "\nExecReload=/bin/kill -HUP $MAINPID\n" in unit
