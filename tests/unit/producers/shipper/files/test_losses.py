"""Losses of lines: each is reported with its exact size, and nothing is reported where nothing is lost."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.shipper_desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def lines(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


def is_lost(desk: Desk, *sizes: int) -> bool:
    """Return whether exactly these numbers of bytes are reported."""
    path = desk.path("app.log")
    reports = [f"{path}: truncated with {size} bytes unread; their lines are lost" for size in sizes]
    counted = (desk.discovery.lost_files, desk.discovery.lost_bytes) == (len(sizes), sum(sizes))
    return desk.complaints == reports and counted


@pytest.mark.parametrize("refilled", ["", lines(7, 8), lines(7, 900)], ids=["empty", "shorter", "longer"])
def test_truncation_of_unread_lines_is_reported(desk: Desk, refilled: str) -> None:
    """``> app.log`` while lines are unread: what the last scan has seen and no read is lost."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    desk.write("app.log", lines(4, 6))
    desk.discovery.scan(desk.now)
    desk.truncate("app.log")
    desk.write("app.log", refilled)
    desk.settle()
    assert desk.shipped["app"] == (lines(1, 3) + refilled).splitlines()
    assert is_lost(desk, len(lines(4, 6)))


def test_truncation_of_a_backlog_is_reported(desk: Desk) -> None:
    """A large file is truncated while it is read, or while NATS is unreachable and nothing is read."""
    desk.write("app.log", lines(1, 20_000))
    desk.ship(batches=1)
    (stream,) = desk.discovery.streams.values()
    read = stream.chain[0].read_offset
    desk.write("app.log", lines(20_001, 30_000))
    desk.discovery.scan(desk.now)
    size = desk.path("app.log").stat().st_size
    desk.truncate("app.log")
    desk.write("app.log", "new\n")
    desk.settle()
    assert desk.shipped["app"][-1] == "new"
    assert is_lost(desk, size - read)


def test_truncation_before_the_first_read_is_reported(desk: Desk) -> None:
    """Nothing was read that could be compared, but sizes were seen; each truncated content counts."""
    desk.write("app.log", "")
    desk.ship()
    sizes = []
    for first, last in ((1, 5), (6, 8), (9, 10)):
        desk.write("app.log", lines(first, last))
        sizes.append(desk.path("app.log").stat().st_size)
        desk.discovery.scan(desk.now)
        desk.truncate("app.log")
        desk.discovery.scan(desk.now)
    desk.write("app.log", "last\n")
    desk.settle()
    assert desk.shipped == {"app": ["last"]}
    assert is_lost(desk, *sizes)


@pytest.mark.parametrize("refilled", ["", lines(7, 8), lines(7, 900)], ids=["empty", "shorter", "longer"])
@pytest.mark.parametrize("scans", [True, False])
def test_truncation_of_what_is_shipped_is_no_loss(desk: Desk, refilled: str, scans: bool) -> None:
    """A file that was read to its end loses nothing."""
    desk.write("app.log", lines(1, 6))
    desk.ship()
    desk.truncate("app.log")
    desk.write("app.log", refilled)
    if scans:
        desk.discovery.scan(desk.now)
    desk.settle()
    assert desk.shipped["app"] == (lines(1, 6) + refilled).splitlines()
    assert is_lost(desk)


@pytest.mark.parametrize("rotations", [1, 2, 3])
def test_a_copy_is_no_loss(desk: Desk, rotations: int) -> None:
    """What copytruncate has copied is read from the copy."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    for number in range(rotations):
        desk.write("app.log", lines(10 * number + 4, 10 * number + 9))
        desk.discovery.scan(desk.now)
        for older in range(number, 0, -1):
            desk.rename(f"app.log.{older}", f"app.log.{older + 1}")
        desk.copy_and_truncate("app.log", "app.log.1")
        desk.discovery.scan(desk.now)
    desk.settle()
    assert len(desk.shipped["app"]) == 3 + 6 * rotations
    assert is_lost(desk)


def test_a_renamed_file_is_no_loss(desk: Desk) -> None:
    """A shorter successor is no truncated file."""
    desk.write("app.log", lines(1, 30))
    desk.discovery.scan(desk.now)
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", lines(31, 32))
    desk.settle()
    assert desk.shipped["app"] == lines(1, 32).splitlines()
    assert is_lost(desk)


def test_truncation_while_the_shipper_was_down_is_reported(desk: Desk) -> None:
    """What was added after the last checkpoint is not known, so that nothing is counted."""
    desk.write("app.log", lines(1, 3))
    desk.ship()
    desk.write("app.log", lines(4, 6))
    desk.truncate("app.log")
    desk.write("app.log", lines(7, 8))
    desk.kill()
    desk.settle()
    assert desk.shipped["app"] == (lines(1, 3) + lines(7, 8)).splitlines()
    lost = "truncated or replaced, with 21 bytes shipped; lines after these, if there were any, are lost"
    assert desk.complaints == [f"{desk.path('app.log')}: {lost}"]
    assert desk.discovery.lost_files == 0
