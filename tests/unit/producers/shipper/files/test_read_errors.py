"""Files and folders that cannot be read for a moment: every line is shipped once and in order.

Each system call of a scan or of building a batch fails in turn, once or several times in a row.
"""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tickertape.contracts.subjects import LEVELS
from tickertape.producers.shipper.files import tailed_file
from tickertape.producers.shipper.files.batch import MAX_BATCH_EVENTS, Batch
from tickertape.producers.shipper.files.discovery import FileDiscovery
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.throttle import ThrottleSettings

from tests.support.shipper_desk import Desk

LINES = 40
BATCH_CALLS = ("pread", "fstat", "dup")
SCAN_CALLS = ("open", "stat", "lstat", "scandir", *BATCH_CALLS)


class Disk:
    """Disk whose system calls fail while a batch is built, or while files are looked for as well.

    Attributes:
        calls: number of system calls while batches were built and files were looked for.
        fails_at: number of the first call that fails; None for none.
        times: number of consecutive calls that fail.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, scans: bool) -> None:
        self.calls = 0
        self.fails_at: int | None = None
        self.times = 1
        self._building = False
        monkeypatch.setattr(tailed_file, "CHUNK_BYTES", 256)
        for name in SCAN_CALLS if scans else BATCH_CALLS:
            monkeypatch.setattr(os, name, self._wrap(getattr(os, name)))
        next_batch, scan = FileStream.next_batch, FileDiscovery.scan

        def build(stream: FileStream, now: float, *, finish: bool = False) -> Batch | None:
            self._building = True
            try:
                return next_batch(stream, now, finish=finish)
            except OSError:
                stream.back_off()
                return None
            finally:
                self._building = False

        def find(discovery: FileDiscovery, now: float) -> None:
            self._building = scans
            try:
                scan(discovery, now)
            finally:
                self._building = False

        monkeypatch.setattr(FileStream, "next_batch", build)
        monkeypatch.setattr(FileDiscovery, "scan", find)

    def _wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def checked(*arguments: Any, **options: Any) -> Any:
            if self._building:
                self.calls += 1
                if self.fails_at is not None and 0 <= self.calls - self.fails_at < self.times:
                    raise OSError(errno.EMFILE, "Too many open files")
            return call(*arguments, **options)

        return checked


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """Return a disk without errors yet."""
    return Disk(monkeypatch, scans=False)


def write(desk: Desk, start: int, count: int = LINES) -> None:
    """Append numbered lines."""
    desk.write("app.log", "".join(f"line {number:03}\n" for number in range(start, start + count)))


def run_plain(desk: Desk) -> None:
    """Ship a file that grows."""
    write(desk, 0)
    desk.ship()
    write(desk, LINES)
    desk.ship()


def write_first(desk: Desk) -> None:
    """Write lines and ship the first: a file that is renamed before it was ever found is not shipped."""
    write(desk, 0)
    while "app" not in desk.shipped:
        desk.ship(1.0, batches=1)


def run_renamed(desk: Desk) -> None:
    """Ship a file that is renamed while it has unread lines."""
    write_first(desk)
    write(desk, LINES)
    desk.rename("app.log", "app.log.1")
    write(desk, 2 * LINES)
    desk.ship()


def run_truncated(desk: Desk) -> None:
    """Ship a file that is copied and truncated after it was read, and then grows."""
    write_first(desk)
    desk.ship()
    desk.copy_and_truncate("app.log", "app.log.1")
    write(desk, LINES)
    desk.ship()


def run_restarted(desk: Desk) -> None:
    """Ship a file that is renamed twice while the shipper is not running."""
    write_first(desk)
    desk.ship()
    write(desk, LINES)
    desk.rename("app.log", "app.log.1")
    write(desk, 2 * LINES)
    desk.rename("app.log.1", "app.log.2")
    desk.rename("app.log", "app.log.1")
    write(desk, 3 * LINES)
    desk.kill()
    desk.ship()


def run_missed(desk: Desk) -> None:
    """Ship a file that appears and is renamed between two scans."""
    run_renamed(desk)
    desk.settle()
    desk.rename("app.log.1", "app.log.3")
    desk.rename("app.log", "app.log.2")
    write(desk, 3 * LINES)
    desk.rename("app.log", "app.log.1")
    write(desk, 4 * LINES)
    desk.ship()


SCENARIOS = {"plain": (run_plain, 2), "renamed": (run_renamed, 3), "truncated": (run_truncated, 2)}
SCAN_SCENARIOS = SCENARIOS | {"restarted": (run_restarted, 4), "missed": (run_missed, 5)}


def shipped(folder: Path, scenario: Callable[[Desk], None], *patterns: str) -> list[str]:
    """Run a scenario to its end; return the shipped lines in order."""
    folder.mkdir()
    desk = Desk(folder, *patterns)
    scenario(desk)
    desk.settle()
    desk.close()
    return desk.shipped["app"]


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("name", SCENARIOS)
def test_no_read_error_loses_or_repeats_a_line(name: str, times: int, disk: Disk, tmp_path: Path) -> None:
    """Whichever system call fails, reading resumes where it stopped."""
    scenario, parts = SCENARIOS[name]
    expected = [f"line {number:03}" for number in range(parts * LINES)]
    assert shipped(tmp_path / "none", scenario) == expected
    total, disk.times = disk.calls, times
    for number in _spread(total):
        disk.calls, disk.fails_at = 0, number
        assert shipped(tmp_path / str(number), scenario) == expected, f"call {number} of {total} fails"


@pytest.mark.parametrize("pattern", ["*.log", "**"])
@pytest.mark.parametrize("times", [1, 4])
@pytest.mark.parametrize("name", SCAN_SCENARIOS)
def test_no_error_of_a_scan_makes_a_file_look_removed(
    name: str, times: int, pattern: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whichever system call of a scan fails, files are found by a later scan, and read once and in order."""
    disk = Disk(monkeypatch, scans=True)
    scenario, parts = SCAN_SCENARIOS[name]
    expected = [f"line {number:03}" for number in range(parts * LINES)]
    assert shipped(tmp_path / "none", scenario, pattern) == expected
    total, disk.times = disk.calls, times
    # The calls recur in every scan, so a part of them shows each kind; the scenarios differ in it.
    for number in range(1 + parts, total + 1, 3 + 2 * times):
        disk.calls, disk.fails_at = 0, number
        found = shipped(tmp_path / str(number), scenario, pattern)
        assert found == expected, f"call {number} of {total} fails"


def _spread(total: int) -> Iterator[int]:
    # Every call of the first batches, where most kinds occur, and then every third.
    yield from (number for number in range(1, total + 1) if number < 60 or number % 3 == 0)


def test_reports_never_exceed_the_size_of_a_batch(tmp_path: Path) -> None:
    """JetStream rejects more than a thousand messages, so a full batch leaves the reports to the next."""
    desk = Desk(tmp_path, throttle=ThrottleSettings(rates={"DEBUG": 1.0}))
    desk.write("app.log", "".join(f"DEBUG {number}\n" for number in range(5)))
    desk.ship()
    desk.now += 5
    desk.write("app.log", "".join(f"INFO {number}\n" for number in range(MAX_BATCH_EVENTS)))
    desk.discovery.scan(desk.now)
    [stream] = desk.discovery.streams.values()
    sizes = []
    while (batch := stream.next_batch(desk.now)) is not None:
        sizes.append(len(batch.events))
        stream.mark_shipped(batch, 1)
    assert max(sizes) <= MAX_BATCH_EVENTS
    assert sum(sizes) == MAX_BATCH_EVENTS + 1, f"one report; there could be one for each of {LEVELS}"
    desk.close()


def test_a_rotated_file_that_grew_unread_is_not_complete(tmp_path: Path) -> None:
    """While an older file is pending, no file is read; one that grows then must not count as complete."""
    desk = Desk(tmp_path)
    write(desk, 0)
    desk.ship()
    [stream] = desk.discovery.streams.values()
    [file] = stream.chain
    file.mark_rotated()
    desk.now += 60
    assert file.is_complete()
    write(desk, LINES)
    assert not file.is_complete()
    file.read(desk.now)
    desk.now += 60
    assert file.is_complete()
    desk.close()
