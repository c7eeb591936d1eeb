"""Rotations of a log between any two system calls of a scan."""

import os
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.shipper_desk import Desk

KEPT: Final = 6
"""Number of rotated files that are kept."""


class Log:
    """Numbered lines in a file that is rotated by renaming."""

    def __init__(self, desk: Desk) -> None:
        self.lines: list[str] = []
        self._desk = desk

    def write(self, lines: int) -> None:
        new = [f"line {len(self.lines) + number}" for number in range(lines)]
        self.lines += new
        self._desk.write("app.log", "".join(f"{line}\n" for line in new))

    def rotate(self) -> None:
        for number in range(KEPT, 0, -1):
            if self._desk.path(f"app.log.{number}").exists():
                self._desk.rename(f"app.log.{number}", f"app.log.{number + 1}")
        self._desk.rename("app.log", "app.log.1")


class Interruption:
    """Action that runs once, immediately before the n-th call that opens, lists or stats a file."""

    def __init__(self) -> None:
        self._left = 0
        self._action: Callable[[], None] | None = None

    def arm(self, number: int, action: Callable[[], None]) -> None:
        self._left, self._action = number, action

    def disarm(self) -> bool:
        """Return whether the action has run, and discard it otherwise."""
        action, self._action = self._action, None
        return action is None

    def call(self) -> None:
        """Count a call, and run the action if it is due."""
        self._left -= 1
        if self._left < 0 and (action := self._action) is not None:
            self._action = None  # calls of the action itself are not counted
            action()


@pytest.fixture
def interruption(monkeypatch: pytest.MonkeyPatch) -> Iterator[Interruption]:
    hook = Interruption()
    real = {name: getattr(os, name) for name in ("open", "stat", "lstat", "scandir")}

    def wrap(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            hook.call()
            return real[name](*args, **kwargs)

        return call

    for name in real:
        monkeypatch.setattr(os, name, wrap(name))
    yield hook
    hook.disarm()


@pytest.mark.parametrize("glob", ["*.log", "*"])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("unshipped", [0, 1, 2], ids=lambda number: f"{number}-unshipped")
@pytest.mark.parametrize("rotations", [1, 2])
@pytest.mark.parametrize("quiet", [0.0, 60.0], ids=["busy", "quiet"])
def test_a_rotation_during_a_scan(
    tmp_path: Path,
    interruption: Interruption,
    glob: str,
    restarted: bool,
    unshipped: int,
    rotations: int,
    quiet: float,
) -> None:
    """Every line is shipped once and in order, even if the shipper is killed afterwards."""
    for call in count():
        folder = tmp_path / str(call)
        folder.mkdir()
        desk = Desk(folder, glob)
        log = Log(desk)
        log.write(3)
        desk.ship()
        for _ in range(unshipped):
            log.write(3)
            log.rotate()
        if unshipped:
            log.write(3)  # otherwise the live file is completely shipped
        if restarted:
            desk.kill()

        def rotate(log: Log = log) -> None:
            for _ in range(rotations):
                log.rotate()
                log.write(2)

        desk.now += quiet
        interruption.arm(call, rotate)
        desk.ship(1.0)
        interrupted = interruption.disarm()
        log.write(1)
        desk.ship(1.0)
        desk.kill()
        desk.settle()
        context = f"before call {call}: {desk.complaints}"
        assert desk.shipped["app"] == log.lines, context
        assert not desk.complaints, context
        desk.close()
        if not interrupted:
            break  # every call of a scan was interrupted
    assert call > 0


@pytest.mark.parametrize("linked", [False, True], ids=["file", "link"])
@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_rotations_between_a_scan_and_a_kill(tmp_path: Path, rotations: int, linked: bool) -> None:
    """A file that is read long after it was renamed does not make the files that followed it known."""
    (folder := tmp_path / "logs").mkdir()
    desk = Desk(tmp_path if linked else folder, "*.log", roots=[folder])
    if linked:
        desk.path("app.log").symlink_to(folder / "app.log")
        desk.folder = folder
    log = Log(desk)
    log.write(3)
    desk.ship()
    log.write(3)
    for _ in range(rotations):
        log.rotate()
        log.write(2)
    desk.ship(60.0, scan=False)
    desk.kill()
    log.rotate()
    log.write(2)
    desk.settle()
    assert desk.shipped["app"] == log.lines
    assert not desk.complaints
    desk.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("missed", [0, 2], ids=lambda number: f"{number}-missed")
def test_a_rotation_after_the_folder_was_listed_for_another_log(
    tmp_path: Path, interruption: Interruption, restarted: bool, missed: int
) -> None:
    """A listing that a scan has made for one log is used for another only if it still applies to that one."""
    for call in count():
        folder = tmp_path / str(call)
        folder.mkdir()
        desk = Desk(folder)
        desk.write("first.log", "first\n")
        log = Log(desk)
        if restarted:
            log.write(1)
            desk.settle()
            desk.kill()
        else:  # without rotated files, which a first start does not read
            desk.ship()
        desk.write("another.log", "another\n")  # it is older, so a scan opens it before the other log
        for _ in range(missed):
            log.write(2)
            log.rotate()
        log.write(2)

        def rotate(log: Log = log) -> None:
            log.rotate()
            log.write(2)

        interruption.arm(call, rotate)
        desk.ship(1.0)
        interrupted = interruption.disarm()
        log.write(1)
        desk.settle()
        context = f"before call {call}: {desk.complaints}"
        assert desk.shipped["app"] == log.lines, context
        assert desk.shipped["another"] == ["another"], context
        assert not desk.complaints, context
        desk.close()
        if not interrupted:
            break
    assert call > 0
