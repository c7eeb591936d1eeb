"""Files with holes, half lines, and names that are not UTF-8."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickertape.producers.shipper.files import file_watcher, tailed_file
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.lines.line_buffer import HOLE_BYTES, LineBuffer
from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES, ParseSettings
from tickertape.producers.shipper.throttle import ThrottleSettings
from tickertape.producers.shipper.timing import HALF_LINE_AFTER, ROTATION_GRACE

from tests.support.shipper_desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


@pytest.mark.parametrize("size", [1, HOLE_BYTES, 4096, MAX_LINE_BYTES, 3 * MAX_LINE_BYTES + 5])
def test_a_hole_swallows_no_line(size: int, desk: Desk) -> None:
    """The line after a hole is shipped, whether the hole is at the start of a file or between two lines."""
    desk.write("app.log", "\0" * size + "one\n" + "\0" * size + "two\nthree\n" + "\0" * size)
    desk.settle()
    assert desk.shipped == {"app": ["one", "two", "three"]}
    assert desk.counts.truncated == 0
    desk.write("app.log", "four\n")
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": ["one", "two", "three", "four"]}


@pytest.mark.parametrize("chunk", [64, 4096])
def test_a_hole_ends_the_line_before_it(chunk: int, desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line whose end was never written is separate from the next one, also after a restart."""
    monkeypatch.setattr(tailed_file, "CHUNK_BYTES", chunk)
    desk.write("app.log", "one\ntwo, of which the e" + "\0" * 5000)
    desk.ship()
    desk.kill()
    desk.write("app.log", "three\n")
    desk.settle()
    shipped = [text for text in desk.shipped["app"] if text]
    assert shipped == ["one", "two, of which the e", "three"]


def test_offsets_after_a_hole_are_exact() -> None:
    """Reading can resume after each line, although the hole is not part of one."""
    data = b"a\nb" + b"\0" * 40 + b"c\r\nd"
    lines, ends, truncated = LineBuffer().split(data, 100)
    assert lines == [b"a", b"b", b"c"]
    assert ends[0] == 102
    assert 103 <= ends[1] <= 143
    assert ends[2] == 100 + data.index(b"d")
    assert not truncated


def test_a_few_null_bytes_split_no_line() -> None:
    """UTF-16 and UTF-32 have up to three null bytes in a row."""
    text = "ab".encode("utf-32-le")
    lines, _, _ = LineBuffer().split(b"x" + text + b"\n", 0)
    assert lines == [b"x" + text.rstrip(b"\0")]


def test_half_a_line_waits_for_its_end(desk: Desk) -> None:
    """A writer may pause within a line for longer than a few seconds."""
    desk.write("app.log", "half ")
    for _ in range(5):
        desk.ship(HALF_LINE_AFTER / 6)
    assert desk.shipped == {}
    desk.write("app.log", "and half\nlast")
    desk.ship(1.0)
    assert desk.shipped == {"app": ["half and half"]}
    desk.ship(HALF_LINE_AFTER)
    assert desk.shipped == {"app": ["half and half", "last"]}


def test_half_a_line_of_a_rotated_file_does_not_delay_the_next_file(desk: Desk) -> None:
    """The writer of a rotated file has moved on, so that nothing completes its last line."""
    desk.write("app.log", "one\ntw")
    desk.ship()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", "three\n")
    desk.ship()
    desk.ship(ROTATION_GRACE)
    desk.ship()
    assert desk.shipped == {"app": ["one", "tw", "three"]}


@pytest.mark.parametrize("step", [0.4, -0.4])
def test_a_small_step_of_the_clock_joins_and_splits_nothing(step: float, tmp_path: Path) -> None:
    """A step that is too small to be noticed is longer than the wait for a continuation line."""
    desk = Desk(tmp_path, parsing=ParseSettings())
    desk.write("app.log", "INFO one\n")
    desk.ship()
    desk.now += step
    desk.steps += step
    desk.ship(0.0, scan=False)
    assert desk.shipped == {}
    desk.write("app.log", "  and more\n")
    desk.ship(0.0, scan=False)
    desk.now += 0.3
    desk.ship(0.0, scan=False)
    assert desk.shipped == {"app": ["INFO one\n  and more"]}
    desk.close()


def test_a_name_that_is_not_utf_8_is_escaped(tmp_path: Path) -> None:
    """Such a name has a source of its own, and reports of suppressed lines contain it."""
    desk = Desk(tmp_path, throttle=ThrottleSettings(rates={"INFO": 1.0}))
    for name in (b"a\xff.log", b"a\xfe.log"):
        desk.write(os.fsdecode(name), "one\ntwo\n")
    desk.settle()
    assert sorted(desk.shipped) == ["a\\udcfe", "a\\udcff"]
    paths = {str(body["metadata"].get("path")) for body in desk.bodies if isinstance(body["metadata"], dict)}
    assert {path.rpartition("/")[2] for path in paths} >= {"a\\udcfe.log", "a\\udcff.log"}
    desk.close()


def test_the_end_of_notifications_ends_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """watchfiles fails when a file with such a name changes; files are then found by polling."""

    async def failing(*_: object, **__: object) -> object:
        raise ExceptionGroup("unhandled errors", [RuntimeError("Unable to decode path")])
        yield

    monkeypatch.setattr(file_watcher, "awatch", failing)
    watcher = FileWatcher([f"{tmp_path}/*.log"])
    asyncio.run(watcher.run())
    assert not watcher.active


@pytest.mark.parametrize("start", ["", "banner\n" * 200, "\0" * 200_000], ids=["lines", "banner", "hole"])
@pytest.mark.parametrize("sizes", [(700_000, 600_000), (600_000, 700_000)], ids=["shorter", "longer"])
@pytest.mark.parametrize("end", ["two\n", ""], ids=["read-line", "read-hole"])
@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("glob", ["*.log", "*"])
def test_a_file_that_ends_in_a_hole_is_no_copy(
    tmp_path: Path, glob: str, restarted: bool, end: str, sizes: tuple[int, int], start: str
) -> None:
    """A file with a hole at its end is not a copy of one with a hole there, though both begin alike."""
    desk = Desk(tmp_path, glob)
    desk.write("app.log", f"{start}one\n")
    os.truncate(desk.path("app.log"), sizes[0])
    desk.write("app.log", end)
    desk.ship()
    if restarted:
        desk.kill()
        desk.ship()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", f"{start}three\n")
    os.truncate(desk.path("app.log"), sizes[1])
    desk.write("app.log", "")  # with the time of the desk
    desk.rename("app.log.1", "app.log.2")
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", "four\n")
    desk.settle()
    shipped = [text for text in desk.shipped["app"] if text not in ("", "banner")]
    # A visible file that begins like another one waits until it is clear that it is no copy.
    expected = [text for text in ("one", end.strip(), "three", "four") if text]
    assert (shipped if glob == "*.log" else sorted(shipped, key=expected.index)) == expected
    desk.close()


@pytest.mark.parametrize("end", ["\0" * 100_000, "\0" * 100_000 + "two\n"], ids=["hole", "line"])
def test_a_copy_that_ends_in_a_hole_is_recognized(tmp_path: Path, end: str) -> None:
    """The copy of a file with a hole is read no second time, while it is made and after the truncation."""
    desk = Desk(tmp_path)
    desk.write("app.log", f"one\n{end}")
    desk.ship()
    content = desk.path("app.log").read_bytes()
    for size in (0, 60_000, len(content)):
        desk.path("app.log.1").write_bytes(content[:size])
        desk.write("app.log.1", "")
        desk.write("app.log", "")
        desk.ship(1.0)
    desk.truncate("app.log")
    desk.write("app.log", "three\n")
    desk.settle()
    assert desk.shipped["app"] == ["one", *(["two"] if "two" in end else []), "three"]
    assert not desk.complaints
    desk.close()


@pytest.mark.parametrize("restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("size", [150_000, 200_000])
def test_a_truncation_behind_a_hole_is_detected(tmp_path: Path, size: int, restarted: bool) -> None:
    """A truncated file that begins like before, and has a hole where it had one, is read from its start."""
    desk = Desk(tmp_path)
    banner = "banner\n" * 200
    desk.write("app.log", banner + "one\n" + "\0" * 150_000)
    if restarted:
        desk.ship()
        desk.kill()
        desk.write("app.log", "\0")  # read by the new process
    desk.ship()
    desk.truncate("app.log")
    desk.write("app.log", banner + "two\n" + "\0" * size + "three\n")
    desk.settle()
    assert [text for text in desk.shipped["app"] if text != "banner"] == ["one", "two", "three"]
    desk.close()
