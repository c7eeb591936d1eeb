"""A restore on a terminal asks before it deletes streams, and shows its progress on one line."""

import os
import pty
import signal
import subprocess
import threading
from pathlib import Path

import pytest

from tests.integration.backup.test_bad_backups import EVENTS, command, fill, state
from tests.support.clients.feed_client import run
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import command as tickertape
from tests.support.programs.relay_process import environment
from tests.support.servers.nats_server import NatsServer


@pytest.fixture
def backup(nats_server: NatsServer, tmp_path: Path) -> Path:
    """Make a backup, and store one more event."""
    run(fill(nats_server.url))
    assert command(nats_server.url, "backup", str(tmp_path / "backup")) == 0
    run(fill(nats_server.url))
    return tmp_path / "backup"


def answer(url: str, backup: Path, text: bytes | signal.Signals) -> tuple[int, str]:
    """Answer the question of a restore on a terminal, or send a signal then; return exit code and output."""
    terminal, program_end = pty.openpty()
    process = subprocess.Popen(
        tickertape("streams", "restore", str(backup), "--nats-url", url),
        cwd=ROOT,
        env=environment(TERM="xterm", COLUMNS="100"),
        stdin=program_end,
        stdout=program_end,
        stderr=program_end,
    )
    os.close(program_end)
    shown, asked = b"", False
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        while True:
            try:
                read = os.read(terminal, 4096)
            except OSError:  # Linux reports a closed terminal this way
                read = b""
            if not read:
                break
            shown += read
            if not asked and b"Type yes:" in shown:
                asked = True
                if isinstance(text, bytes):
                    os.write(terminal, text)
                else:
                    process.send_signal(text)
        return process.wait(PATIENCE), shown.decode()
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        os.close(terminal)


@pytest.mark.parametrize("text", [b"no\n", b"y\n", b"\n", b"\x04"])
def test_another_answer_than_yes_changes_nothing(nats_server: NatsServer, backup: Path, text: bytes) -> None:
    """No, an unclear answer and the end of the input leave all streams as they are."""
    before = run(state(nats_server.url))
    code, shown = answer(nats_server.url, backup, text)
    assert code == 1, shown
    assert f"they have {EVENTS} events that the backup does not have" in shown
    assert "not confirmed; nothing was changed" in shown
    assert run(state(nats_server.url)) == before


def test_yes_restores_the_backup(nats_server: NatsServer, backup: Path) -> None:
    """After yes the streams are restored, with a line that shows each step."""
    code, shown = answer(nats_server.url, backup, b"yes\n")
    assert code == 0, shown
    assert "restoring EVENTS" in shown
    assert "restore complete" in shown
    assert run(state(nats_server.url))["EVENTS"][1] == EVENTS


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_no_answer(nats_server: NatsServer, backup: Path, number: signal.Signals) -> None:
    """A signal at the question ends the command, and changes nothing."""
    before = run(state(nats_server.url))
    code, shown = answer(nats_server.url, backup, number)
    assert (code, "interrupted by" in shown) == (128 + number, True), shown
    assert run(state(nats_server.url)) == before
