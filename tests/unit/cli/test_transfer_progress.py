"""Progress is a line that changes on a terminal, and rare lines elsewhere."""

import io
import sys
import time

import pytest

from tickertape.cli.transfer_progress import TransferProgress, describe
from tickertape.text import MIB


class Terminal(io.StringIO):
    """Terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("done", "total", "text"),
    [
        (0, 2 * MIB, "0.0 MiB, 0 %"),
        (MIB, 2 * MIB, "1.0 MiB, 50 %"),
        (2 * MIB - 1, 2 * MIB, "2.0 MiB, 99 %"),
        (2 * MIB, 2 * MIB, "2.0 MiB, 100 %"),
        (3 * MIB, 2 * MIB, "3.0 MiB, 99 %"),
        (5, 0, "0.0 MiB, 99 %"),
        (0, 0, "0.0 MiB, 100 %"),
    ],
)
def test_bytes_and_percentage(done: int, total: int, text: str) -> None:
    """What exceeds an estimate is nearly done, and only the expected bytes are all."""
    assert describe(done, total) == text


def test_lines_are_rare_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A log receives a line per interval, however often the progress changes."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with TransferProgress("streams") as progress:
        update = progress.start("backing up EVENTS", 100 * MIB)
        for position in range(0, 100 * MIB, MIB):
            update(position)
            now += 0.25
    assert capsys.readouterr().err.splitlines() == [
        "tickertape streams: backing up EVENTS: 41.0 MiB, 41 %",
        "tickertape streams: backing up EVENTS: 82.0 MiB, 82 %",
    ]


def test_a_terminal_has_one_line_that_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line shows the step and the percentage, never more often than it can be read, and disappears."""
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with TransferProgress("streams") as progress:
        for step in ("backing up LATEST", "backing up EVENTS"):
            update = progress.start(step, 1000)
            for position in range(1000):
                update(position)
                now += 0.001
    written = terminal.getvalue()
    assert "backing up LATEST" in written
    assert "backing up EVENTS" in written
    assert " 9" in written
    assert written.count("backing up") < 60
    assert written.count("\n") <= 2
    assert "\x1b[2K" in written  # erased at the end
