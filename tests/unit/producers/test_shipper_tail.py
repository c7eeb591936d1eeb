"""Files followed through rotation, truncation and restarts, in a real folder with literal times."""

import os
from pathlib import Path

import pytest

from producers.shipper.checkpoint import Position
from producers.shipper.followed import ROTATION_GRACE, source_of
from producers.shipper.parse import MAX_LINE_BYTES
from producers.shipper.tail import Tail


class Reader:
    """A tail with all that it says; lines count as acknowledged when they were read."""

    def __init__(self, *patterns: Path, known: list[Position] | None = None, from_end: bool = False) -> None:
        self.complaints: list[str] = []
        self.ids: list[str] = []
        self.tail = Tail(
            [str(pattern) for pattern in patterns],
            known=known or [],
            from_end=from_end,
            complain=self.complaints.append,
        )

    def poll(self, now: float = 0.0, rounds: int = 4) -> list[str]:
        lines: list[str] = []
        self.tail.look(now)
        for _ in range(rounds):
            for line in self.tail.read(now):
                lines.append(line.data.decode())
                self.ids.append(line.id)
                line.progress.done(line.end)
        return lines

    def stop(self) -> list[Position]:
        positions = self.tail.positions()
        self.tail.close()
        return positions


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "app.log"


def append(path: Path, text: str) -> None:
    with path.open("a", newline="") as file:
        file.write(text)


def test_lines_come_as_they_are_written(log: Path) -> None:
    """A half line waits for its rest."""
    append(log, "one\ntw")
    reader = Reader(log)
    assert reader.poll() == ["one"]
    append(log, "o\nthree\n")
    assert reader.poll() == ["two", "three"]
    assert reader.poll() == []
    reader.stop()


def test_a_file_that_comes_later_is_read_from_its_start(log: Path) -> None:
    """Waiting for a file loses nothing of it, even when the end was asked for."""
    reader = Reader(log, from_end=True)
    assert reader.poll() == []
    append(log, "one\n")
    assert reader.poll() == ["one"]
    reader.stop()


def test_from_the_end_skips_what_is_there(log: Path) -> None:
    """Only what is written after the first look comes."""
    append(log, "old\n")
    reader = Reader(log, from_end=True)
    assert reader.poll() == []
    append(log, "new\n")
    assert reader.poll() == ["new"]
    reader.stop()


@pytest.mark.parametrize("pattern", ["app.log", "app.log*"])
def test_a_rotated_file_is_drained_before_its_successor(log: Path, pattern: str) -> None:
    """Unread bytes of the old file come first, whether or not its new name is followed, too."""
    append(log, "one\n")
    reader = Reader(log.parent / pattern)
    assert reader.poll() == ["one"]
    append(log, "two\n")
    log.rename(log.with_name("app.log.1"))
    append(log, "three\n")
    assert reader.poll() == ["two", "three"]
    append(log.with_name("app.log.1"), "late\n")
    append(log, "four\n")
    assert sorted(reader.poll()) == ["four", "late"]
    assert len(set(reader.ids)) == len(reader.ids)
    reader.stop()


def test_a_large_rotated_file_comes_whole_and_in_order(log: Path) -> None:
    """The successor waits, however many pieces the old file takes."""
    append(log, "first\n")
    reader = Reader(log)
    assert reader.poll() == ["first"]
    many = [f"line {number:06} {'x' * 80}" for number in range(3000)]
    append(log, "\n".join(many) + "\n")
    log.rename(log.with_name("app.log.1"))
    append(log, "next\n")
    assert reader.poll(rounds=10) == [*many, "next"]
    reader.stop()


def test_the_half_line_of_a_rotated_file_comes_after_a_while(log: Path) -> None:
    """Its rest will not come; before the grace has passed it may."""
    append(log, "half")
    reader = Reader(log)
    assert reader.poll(0.0) == []
    log.rename(log.with_name("app.log.1"))
    assert reader.poll(1.0) == []
    assert reader.poll(1.0 + ROTATION_GRACE) == ["half"]
    assert reader.poll(99.0) == []
    assert reader.tail.positions() == []


def test_a_deleted_file_is_read_to_its_end(log: Path) -> None:
    """What was written before the deletion is not lost."""
    append(log, "one\n")
    reader = Reader(log)
    assert reader.poll() == ["one"]
    append(log, "two\n")
    log.unlink()
    assert reader.poll() == ["two"]
    reader.stop()


def test_a_truncated_file_begins_again(log: Path) -> None:
    """After copytruncate new lines come, under ids that were never used."""
    append(log, "one\ntwo\n")
    reader = Reader(log)
    assert reader.poll() == ["one", "two"]
    log.write_text("one\n")
    assert reader.poll() == ["one"]
    assert len(set(reader.ids)) == 3
    reader.stop()


def test_a_restart_goes_on_where_it_stood(log: Path) -> None:
    """No line twice, none lost, and the same ids for the same lines."""
    append(log, "one\ntwo\nhal")
    first = Reader(log)
    assert first.poll() == ["one", "two"]
    known = first.stop()
    append(log, "f\nthree\n")
    second = Reader(log, known=known)
    assert second.poll() == ["half", "three"]
    second.stop()
    again = Reader(log, known=known)
    again.poll()
    assert again.ids == second.ids
    again.stop()


def test_a_rotation_during_a_restart_loses_nothing(log: Path) -> None:
    """The old file is found by what it is, with those that came and went between, and read first."""
    append(log, "one\n")
    first = Reader(log)
    assert first.poll() == ["one"]
    known = first.stop()
    append(log, "two\n")
    log.rename(log.with_name("app.log.2"))
    os.utime(log.with_name("app.log.2"), (1000, 1000))
    log.with_name("app.log.1").write_text("three\n")
    os.utime(log.with_name("app.log.1"), (2000, 2000))
    append(log, "four\n")
    log.with_name("app.log.9").write_text("long ago\n")
    os.utime(log.with_name("app.log.9"), (10, 10))
    second = Reader(log, known=known)
    assert second.poll(rounds=5) == ["two", "three", "four"]
    assert second.complaints == []
    second.stop()


def test_a_file_that_was_lost_during_a_restart_is_told(log: Path) -> None:
    """Nothing vanishes in silence."""
    append(log, "one\n")
    first = Reader(log)
    first.poll()
    known = first.stop()
    log.rename(log.parent.parent / f"{log.parent.name}.elsewhere")
    append(log, "two\n")
    second = Reader(log, known=known)
    assert second.poll() == ["two"]
    assert "rotated away while the shipper was down, with 4 bytes shipped" in second.complaints[0]
    second.stop()


def test_other_content_on_the_same_inode_is_read_from_its_start(log: Path) -> None:
    """A reused inode does not begin at an old offset."""
    append(log, "old one\n")
    first = Reader(log)
    first.poll()
    known = first.stop()
    log.write_text("new one that is longer\n")
    second = Reader(log, known=known)
    assert second.poll() == ["new one that is longer"]
    assert not set(first.ids) & set(second.ids)
    second.stop()


def test_a_line_without_end_is_cut(log: Path) -> None:
    """Memory is bounded, and the next line is whole."""
    append(log, "x" * (MAX_LINE_BYTES + 10) + "\nnext\n")
    reader = Reader(log)
    lines = reader.poll()
    assert [len(line) for line in lines] == [MAX_LINE_BYTES, 4]
    reader.stop()


def test_what_is_no_log_is_left_alone(tmp_path: Path) -> None:
    """Folders, pipes and compressed files are passed over."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.gz").write_text("x\n")
    os.mkfifo(tmp_path / "pipe")
    reader = Reader(tmp_path / "*")
    assert reader.poll() == []
    assert not reader.tail.seen
    reader.stop()


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/var/log/app.log", "app"),
        ("app.log.1", "app"),
        ("app.log-20250624", "app"),
        ("plain", "plain"),
        ("x" * 200 + ".log", "file"),
    ],
)
def test_the_source_is_the_name_without_its_ending(path: str, source: str) -> None:
    """A rotated file keeps its source; a name that makes no legal one does not stop anything."""
    assert source_of(path) == source
