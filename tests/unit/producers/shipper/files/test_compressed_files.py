"""Files that are rotated and compressed while the shipper runs, and random orders of all that with kills."""

import gzip
import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tickertape.producers.shipper.content import compression, uncompressor

from tests.support.shipper_desk import Desk

FULL: Final = os.environ.get("CHAOS") == "full"
ORDERS: Final = 3_000 if FULL else 120

FOUND: Final = (352, 1069)
"""Further seeds that have lost lines."""


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def lines(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


class Log:
    """Log that is rotated by renaming or copying, and compressed, with numbers as logrotate gives them.

    Args:
        desk: its folder.
        copies: it is copied and truncated.
        keeps_time: compressing keeps the modification time, as most programs do.
        holes: chooses the holes of null bytes after its lines, as after crashes of its host; None for none.
    """

    def __init__(
        self,
        desk: Desk,
        *,
        copies: bool = False,
        keeps_time: bool = True,
        holes: random.Random | None = None,
    ) -> None:
        self.lines: list[str] = []
        self._desk = desk
        self._copies = copies
        self._keeps_time = keeps_time
        self._holes = holes

    def write(self, count: int, padding: int = 0) -> None:
        first = len(self.lines) + 1
        new = [f"line {number} {'x' * padding}".strip() for number in range(first, first + count)]
        self.lines += new
        hole = self._holes.choice([0, 0, 300, 100_000]) if self._holes else 0
        self._desk.write("app.log", "".join(f"{line}\n" for line in new) + "\0" * hole)

    def numbers(self) -> list[int]:
        names = {path.name.split(".")[2] for path in self._desk.folder.glob("app.log.*")}
        return sorted(map(int, names), reverse=True)

    def rotate(self) -> None:
        desk = self._desk
        if not desk.path("app.log").exists() or not desk.path("app.log").stat().st_size:
            return
        for number in self.numbers():
            for extension in ("", ".gz"):
                if desk.path(f"app.log.{number}{extension}").exists():
                    desk.rename(f"app.log.{number}{extension}", f"app.log.{number + 1}{extension}")
        if self._copies:
            desk.copy_and_truncate("app.log", "app.log.1")
        else:
            desk.rename("app.log", "app.log.1")

    def compress(self, number: int = 1) -> Iterator[None]:
        """Replace a file by a compressed one, step by step."""
        desk = self._desk
        old, new = desk.path(f"app.log.{number}"), desk.path(f"app.log.{number}.gz")
        if not old.exists() or new.exists():
            return
        data = gzip.compress(old.read_bytes())
        new.write_bytes(data[: len(data) // 2])
        os.utime(new, (desk.now, desk.now))
        yield
        new.write_bytes(data)
        desk.now += 0.05
        os.utime(new, (desk.now, desk.now))
        yield
        if self._keeps_time:
            os.utime(new, (desk.now, old.stat().st_mtime))
        yield
        desk.delete(f"app.log.{number}")


def compress_all(log: Log) -> None:
    for _ in log.compress():
        pass


@pytest.mark.parametrize("keeps_time", [True, False], ids=["time-kept", "new-time"])
@pytest.mark.parametrize("copies", [False, True], ids=["renamed", "copied"])
@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_files_rotated_and_compressed_between_two_scans(
    desk: Desk, copies: bool, rotations: int, keeps_time: bool
) -> None:
    """beats #637: what a running shipper sees only as compressed files is shipped, in order, and once."""
    log = Log(desk, copies=copies, keeps_time=keeps_time)
    log.write(3)
    desk.ship()
    for _ in range(3):
        for _ in range(rotations):
            log.write(5)
            log.rotate()
            log.write(4)
            compress_all(log)
        desk.ship(1.0)
    desk.settle()
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": log.lines}
    assert desk.complaints == []


def test_a_large_compressed_file_holds_back_its_successor(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lines come first, however long it takes to uncompress it beside the event loop."""
    monkeypatch.setattr(uncompressor, "IMMEDIATE_BYTES", 0)
    log = Log(desk)
    log.write(3)
    desk.ship()
    for _ in range(2):
        log.write(500)
        log.rotate()
        compress_all(log)
    log.write(3)
    desk.discovery.scan(desk.now + 1.0)
    (stream,) = desk.discovery.streams.values()
    assert stream.deferred
    desk.settle()
    assert desk.shipped == {"app": log.lines}


@pytest.mark.parametrize("keeps_time", [True, False], ids=["time-kept", "new-time"])
@pytest.mark.parametrize("wait", [0.1, 10.0])
def test_a_kill_before_a_compressed_file_is_read(desk: Desk, keeps_time: bool, wait: float) -> None:
    """Compressed files that were found, and not read before a kill, are found again under any name."""
    log = Log(desk, keeps_time=keeps_time)
    log.write(3)
    desk.ship()
    for count in (2_000, 500, 500):
        log.write(count)
        log.rotate()
        if count != 2_000:
            compress_all(log)
    for _ in range(2):
        log.write(3)
        desk.ship(wait, batches=1)
        desk.kill()
        log.rotate()
        compress_all(log)
    desk.settle()
    assert desk.shipped == {"app": log.lines}
    assert desk.complaints == []


def test_old_files_that_are_compressed_later_are_not_new(desk: Desk) -> None:
    """Files from before the first start are not shipped if a program compresses them and keeps no times."""
    desk.write("app.log.1", lines(101, 110))
    desk.now += 100
    log = Log(desk, keeps_time=False)
    log.write(3)
    desk.ship()
    for _ in range(2):
        log.rotate()
        log.write(3)
        for number in log.numbers():
            for _ in log.compress(number):
                desk.ship(1.0)
        desk.ship(1.0)
        desk.kill()
    desk.settle()
    assert desk.shipped == {"app": log.lines}


@pytest.mark.parametrize("wait", [0.0, 60.0, 86_400.0])
def test_a_file_that_is_compressed_long_after_is_known(desk: Desk, wait: float) -> None:
    """A shipped file that still exists is known for as long as that, whenever it is compressed."""
    log = Log(desk, keeps_time=False)
    log.write(3)
    desk.settle()
    for _ in range(3):
        log.rotate()
        log.write(3)
        desk.settle()
    desk.now += wait
    for number in log.numbers():
        for _ in log.compress(number):
            pass
    log.rotate()
    log.write(3)
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": log.lines}


def test_a_file_that_has_grown_before_it_was_compressed(desk: Desk) -> None:
    """Lines that were written to a file after it was complete are read from the compressed file."""
    log = Log(desk)
    log.write(3)
    desk.ship()
    log.rotate()
    log.write(3)
    desk.settle()
    desk.write("app.log.1", "late\n")
    compress_all(log)
    desk.kill()
    desk.settle()
    assert sorted(desk.shipped["app"]) == sorted([*log.lines, "late"])


@pytest.mark.skipif(not compression.is_readable("a.zst"), reason="needs the library zstandard")
def test_zstd_is_read(desk: Desk) -> None:
    """The output of the program ``zstd`` is read like that of gzip."""
    log = Log(desk)
    log.write(3)
    desk.ship()
    for _ in range(2):
        log.rotate()
        log.write(4)
        log.rotate()
        for number in (2, 1):
            subprocess.run(["zstd", "-q", "--rm", desk.path(f"app.log.{number}")], check=True)
            for old in desk.folder.glob("app.log.*.zst"):
                old.rename(old.with_name(f"app.log.{int(old.name.split('.')[2]) + 2}.zst"))
        desk.now += 1.0
        log.write(4)
        desk.ship()
    desk.settle()
    assert sorted(desk.shipped["app"]) == sorted(log.lines)


def test_a_file_that_cannot_be_read_is_named(desk: Desk) -> None:
    """A format that is not supported is reported with the name and size, if its lines were not read."""
    log = Log(desk)
    log.write(3)
    desk.ship()
    for number in (2, 1):  # the lines of the first file are read
        log.rotate()
        log.write(2)
        desk.write(f"app.log.{number}.lz4", "compressed")
        desk.delete("app.log.1")
    desk.settle()
    assert desk.shipped["app"] == [*log.lines[:3], *log.lines[5:]]
    reason = ".lz4 is not supported; compress with gzip, bzip2, xz or zstd"
    lost = f"{desk.path('app.log.1.lz4')}: not read: {reason}; its lines are lost, 10 bytes compressed"
    assert desk.complaints == [lost]
    assert desk.discovery.lost_files == 1


def run_order(
    folder: Path, seed: int, *, kills: bool, holes: bool = False
) -> tuple[list[str], list[str], list[str]]:
    """Run a random order; return what was shipped, what was written, and what was done."""
    choose = random.Random(seed)
    desk = Desk(folder)
    log = Log(
        desk,
        copies=choose.random() < 0.3,
        keeps_time=choose.random() < 0.5,
        holes=random.Random(f"holes {seed}") if holes else None,
    )
    done: list[str] = []

    def ship() -> None:
        seconds, batches = choose.choice([0.0, 0.3, 1.0, 1.0, 6.0]), choose.choice([1, 100])
        desk.ship(seconds, scan=choose.random() < 0.8, batches=batches)

    def compress(number: int) -> None:
        for _ in log.compress(number):
            if choose.random() < 0.3:
                ship()
            if kills and choose.random() < 0.05:
                desk.kill()

    def rotate() -> None:
        log.rotate()
        if choose.random() < 0.7:
            log.write(choose.randint(1, 40), choose.choice([0, 0, 40, 500]))
        if choose.random() < 0.5:
            compress(1)

    log.write(choose.randint(1, 40))
    desk.ship()
    weights = {"write": 5, "rotate": 3, "compress": 3, "ship": 5, "kill": 1.5 * kills, "settle": 0.5}
    for name in choose.choices(list(weights), list(weights.values()), k=choose.randint(6, 30)):
        done.append(name)
        if name == "write":
            log.write(choose.randint(1, 40), choose.choice([0, 0, 40, 500]))
        elif name == "rotate":
            rotate()
        elif name == "compress":
            compress(choose.choice([*log.numbers(), 1]))
        elif name == "ship":
            ship()
        elif name == "kill":
            desk.kill()
        else:
            desk.settle()
    desk.settle()
    desk.kill()
    desk.settle()
    desk.close()
    return desk.shipped["app"], log.lines, done


@pytest.mark.parametrize("holes", [False, True], ids=["", "holes"])
@pytest.mark.parametrize("kills", [False, True], ids=["running", "killed"])
def test_random_orders(tmp_path: Path, kills: bool, holes: bool) -> None:
    """Whatever the order of writes, rotations, compressions, scans and kills, each line is shipped once."""
    first = int(os.environ.get("CHAOS_SEED") or 0)
    for seed in (*range(first, first + ORDERS), *FOUND):
        folder = tmp_path / str(seed)
        folder.mkdir()
        shipped, written, done = run_order(folder, seed, kills=kills, holes=holes)
        assert shipped == written, f"seed {seed}: {' '.join(done)}"
