"""Known failures of log shippers, one test each."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickertape.producers.shipper.files.file_stream import MAX_CHUNKS
from tickertape.producers.shipper.files.tailed_file import CHUNK_BYTES
from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES, ParseSettings
from tickertape.producers.shipper.throttle import ThrottleSettings
from tickertape.producers.shipper.timing import HALF_LINE_AFTER

from tests.support.shipper_desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def lines(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


def texts(first: int, last: int) -> list[str]:
    return lines(first, last).splitlines()


def test_a_rotated_file_is_read_to_its_end_before_its_successor(desk: Desk) -> None:
    """fluent-bit #10414: a rotated file is read to its end; it used to be abandoned with unread bytes."""
    desk.write("app.log", lines(1, 5_000))
    desk.ship(batches=1)
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", lines(5_001, 5_010))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 5_010)


def test_a_restart_during_a_rotation_loses_nothing(desk: Desk) -> None:
    """vector #22954: lines that are rotated while the shipper restarts are shipped; they used to be lost."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    desk.write("app.log", lines(4, 6))
    desk.rename("app.log", "app.log.1")
    desk.kill()
    desk.write("app.log", lines(7, 9))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 9)


def test_three_rotations_while_the_shipper_was_down(desk: Desk) -> None:
    """Files of several rotations while the shipper was down are shipped in order."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    for number in range(3):
        desk.write("app.log", lines(4 + 2 * number, 5 + 2 * number))
        for older in (2, 1):
            if desk.path(f"app.log.{older}").exists():
                desk.rename(f"app.log.{older}", f"app.log.{older + 1}")
        desk.rename("app.log", "app.log.1")
    desk.kill()
    desk.write("app.log", lines(10, 10))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 10)


def test_a_rename_to_a_matching_name_repeats_nothing(tmp_path: Path) -> None:
    """alloy #3931: renaming a file to a name that the glob matches neither loses nor repeats lines."""
    desk = Desk(tmp_path, "*")
    desk.write("app.log", lines(1, 3))
    desk.ship()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", lines(4, 6))
    desk.settle()
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": texts(1, 6)}
    desk.close()


def test_a_reused_inode_is_read_from_its_start(desk: Desk) -> None:
    """fluent-bit #8025: a new file with a reused inode is read from its start, not from the old offset."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    desk.truncate("app.log")  # same inode, with different and more content
    desk.write("app.log", lines(11, 19))
    desk.kill()
    desk.settle()
    assert desk.shipped["app"] == texts(1, 3) + texts(11, 19)


def test_a_file_truncated_while_the_shipper_was_down_is_sent_once(desk: Desk) -> None:
    """beats #38070: a file truncated while the shipper was down is shipped once, not after each restart."""
    desk.write("app.log", lines(1, 9))
    desk.ship()
    desk.truncate("app.log")
    desk.write("app.log", lines(10, 11))
    for _ in range(3):
        desk.kill()
        desk.settle()
    assert desk.shipped["app"] == texts(1, 11)


def test_copytruncate_with_a_restart_loses_nothing(desk: Desk) -> None:
    """beats #45300: a copytruncate and a restart lose no lines; of 150 only 35 used to arrive."""
    desk.write("app.log", lines(1, 50))
    desk.ship()
    desk.write("app.log", lines(51, 100))
    desk.copy_and_truncate("app.log", "app.log.1")
    desk.kill()
    desk.write("app.log", lines(101, 150))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 150)


@pytest.mark.parametrize("glob", ["*.log", "*"])
def test_copytruncate_ships_the_rest_of_the_copy_and_no_more(tmp_path: Path, glob: str) -> None:
    """After a copytruncate the unread rest of the copy is shipped, and nothing else, whether or not the glob
    matches the copy.
    """
    desk = Desk(tmp_path, glob)
    desk.write("app.log", lines(1, 5))
    desk.ship()
    desk.write("app.log", lines(6, 9))
    desk.copy_and_truncate("app.log", "app.log.1")
    desk.write("app.log", lines(10, 12))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 12)
    desk.close()


def test_a_truncated_file_that_has_grown_past_the_offset_is_read_again(desk: Desk) -> None:
    """A truncated file is detected by its content, because its size may exceed the old offset."""
    desk.write("app.log", lines(1, 2))
    desk.ship()
    desk.truncate("app.log")
    desk.write("app.log", lines(3, 20))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 20)


def test_a_file_truncated_while_it_is_read_is_read_again(desk: Desk) -> None:
    """Truncation loses the unread lines of a file, and its new content is read from the start."""
    desk.write("app.log", lines(1, 20_000))
    desk.ship(batches=1)
    read = len(desk.shipped["app"])
    assert not desk.discovery.streams[str(desk.path("app.log"))].chain[0].at_eof
    desk.truncate("app.log")
    desk.write("app.log", lines(50_001, 80_000))
    desk.settle()
    assert desk.shipped["app"][:read] == texts(1, read)
    assert desk.shipped["app"][-30_000:] == texts(50_001, 80_000)


def test_a_partial_line_is_not_lost(desk: Desk) -> None:
    """fluent-bit #11265: a partial line waits to be completed, and is shipped as it is after a timeout."""
    desk.write("app.log", "line 1\nline")
    desk.ship()
    assert desk.shipped["app"] == ["line 1"]
    desk.write("app.log", " 2\nlast")
    desk.ship()
    assert desk.shipped["app"] == ["line 1", "line 2"]
    desk.settle()
    assert desk.shipped["app"] == ["line 1", "line 2", "last"]


def test_the_last_line_of_a_quiet_log_is_shipped_soon(tmp_path: Path) -> None:
    """The last line of a quiet log waits only briefly for a traceback to follow, because users want to see
    it; a partial line waits longer.
    """
    desk = Desk(tmp_path, parsing=ParseSettings())
    desk.write("app.log", "INFO one\nINFO two\n")
    desk.ship()
    (stream,) = desk.discovery.streams.values()
    assert desk.shipped["app"] == ["INFO one"]
    assert stream.flush_at == pytest.approx(desk.now + 0.25)
    desk.ship(0.3)
    assert desk.shipped["app"] == ["INFO one", "INFO two"]
    assert stream.flush_at == float("inf")
    desk.write("app.log", "INFO three\n  and m")
    desk.ship()
    assert stream.flush_at == pytest.approx(desk.now + HALF_LINE_AFTER)
    desk.write("app.log", "ore\n")
    desk.ship()
    desk.ship(0.3)
    assert desk.shipped["app"][2:] == ["INFO three\n  and more"]
    desk.close()


def test_lines_that_were_not_delivered_are_read_again(desk: Desk) -> None:
    """fluent-bit #2846: offsets advance on delivery, so undelivered lines are read again."""
    desk.write("app.log", lines(1, 2_500))
    desk.ship(batches=1)
    desk.kill()
    desk.settle()
    assert desk.shipped["app"] == texts(1, 2_500)


def test_markers_of_python_311_do_not_split_a_traceback(tmp_path: Path) -> None:
    """fluent-bit #11516: the ^^^^ markers of Python 3.11 do not split a traceback."""
    desk = Desk(tmp_path, parsing=ParseSettings())
    traceback = (
        "Traceback (most recent call last):\n"
        '  File "a.py", line 1, in <module>\n'
        "    f(x / 0)\n"
        "      ~~^~~\n"
        "ZeroDivisionError: division by zero\n"
    )
    desk.write(
        "app.log", f"2026-01-01 10:00:00,000 ERROR it broke\n{traceback}2026-01-01 10:00:01,000 INFO on\n"
    )
    desk.settle()
    assert len(desk.shipped["app"]) == 2
    assert desk.shipped["app"][0].endswith("ZeroDivisionError: division by zero")
    assert "~~^~~" in desk.shipped["app"][0]
    desk.close()


def test_small_files_are_shipped(desk: Desk) -> None:
    """Small files are shipped, too; Vector and Filebeat wait until a file is large enough to identify."""
    desk.write("a.log", "x\n")
    desk.write("b.log", "x\n")
    desk.ship()
    assert desk.shipped == {"a": ["x"], "b": ["x"]}


def test_files_with_the_same_beginning_are_distinguished(tmp_path: Path) -> None:
    """Two files with the same first kilobyte are distinguished, even if one takes the name of the other."""
    desk = Desk(tmp_path, "*")
    banner = "banner of the service\n" * 100
    desk.write("app.log", banner + lines(1, 3))
    desk.ship()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", banner + lines(4, 6))
    desk.kill()
    desk.settle()
    assert [text for text in desk.shipped["app"] if text.startswith("line")] == texts(1, 6)
    assert len(desk.shipped["app"]) == 206
    desk.close()


def test_a_deleted_file_is_read_to_its_end(desk: Desk) -> None:
    """A deleted file is read to its end, because the shipper holds it open."""
    desk.write("app.log", lines(1, 5_000))
    desk.ship(batches=1)
    desk.delete("app.log")
    desk.write("app.log", lines(5_001, 5_002))
    desk.settle()
    assert desk.shipped["app"] == texts(1, 5_002)


def test_a_lost_file_is_reported(desk: Desk) -> None:
    """A file that is replaced while the shipper is down is reported as lost."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    desk.write("new", lines(4, 6))
    desk.rename("new", "app.log")
    desk.kill()
    desk.settle()
    assert desk.shipped["app"] == texts(1, 6)
    assert any("no longer found in any folder that may be read" in text for text in desk.complaints)


def test_from_end_skips_existing_lines_at_the_first_start(tmp_path: Path) -> None:
    """With from_end, new lines are shipped even if the shipper is killed before it shipped any."""
    (tmp_path / "app.log").write_text("old\n")
    desk = Desk(tmp_path, from_end=True)
    desk.ship()
    desk.write("app.log", "new\n")
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": ["new"]}
    desk.close()


def test_a_very_long_line_is_cut_and_the_next_one_complete(desk: Desk) -> None:
    """A line is cut at the limit, which bounds memory, and the next line is complete."""
    desk.write("app.log", "x" * (3 * MAX_LINE_BYTES) + "\nnext\n")
    desk.ship()
    assert [len(text) for text in desk.shipped["app"]] == [MAX_LINE_BYTES, 4]
    assert desk.counts.truncated == 1


def test_a_line_without_an_end_does_not_block_other_files(desk: Desk) -> None:
    """Reading a very long line is interrupted and continued later, so that other files do not wait for it."""
    with desk.path("app.log").open("wb") as file:
        file.truncate(MAX_CHUNKS * CHUNK_BYTES + 10_000_000)
    desk.discovery.scan(desk.now)
    (stream,) = desk.discovery.streams.values()
    assert stream.next_batch(desk.now) is None
    assert stream.chain[0].read_offset == MAX_CHUNKS * CHUNK_BYTES
    assert stream.has_work(desk.now)
    desk.write("app.log", "\nnext\n")
    desk.settle()
    assert desk.shipped["app"][-1] == "next"


def test_suppressed_lines_are_counted_even_across_a_restart(tmp_path: Path) -> None:
    """The number of rate-limited lines is reported in one event, even after a restart."""
    desk = Desk(tmp_path, throttle=ThrottleSettings(rates={"INFO": 10.0}))
    desk.write("app.log", lines(1, 100))
    desk.ship()
    assert desk.shipped["app"] == texts(1, 10)
    desk.kill()
    desk.settle()
    assert desk.shipped["app"][10:] == ["suppressed 90 events of level INFO: more than 10 per second"]
    assert desk.bodies[-1]["metadata"] == {"suppressed": 90, "path": str(desk.path("app.log"))}
    desk.close()


def test_sources_have_their_own_minimum_levels(tmp_path: Path) -> None:
    """The minimum level of a source overrides the general one."""
    desk = Desk(
        tmp_path,
        parsing=ParseSettings(),
        throttle=ThrottleSettings("WARN", {"quiet": "ERROR", "loud": "DEBUG"}),
    )
    for name in ("quiet", "loud", "other"):
        desk.write(f"{name}.log", "INFO a\nWARN b\nERROR c\n")
    desk.settle()
    assert {name: len(found) for name, found in desk.shipped.items()} == {"quiet": 1, "loud": 3, "other": 2}
    desk.close()


def test_folders_and_pipes_are_ignored(desk: Desk) -> None:
    """Folders and pipes that match the glob are ignored and block nothing."""
    desk.path("folder.log").mkdir()
    os.mkfifo(desk.path("pipe.log"))
    desk.write("app.log", "line 1\n")
    desk.settle()
    assert desk.shipped == {"app": ["line 1"]}


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_reported_once(desk: Desk) -> None:
    """An unreadable file is reported once, and the other files are shipped."""
    desk.write("secret.log", "line\n")
    desk.path("secret.log").chmod(0)
    desk.write("app.log", "line 1\n")
    desk.settle()
    assert desk.shipped == {"app": ["line 1"]}
    assert len(desk.complaints) == 1
