"""Files that a rotation moves to another folder or compresses while the shipper is not running."""

import bz2
import gzip
import lzma
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tickertape.producers.shipper.content import uncompressor

from tests.support.shipper_desk import Desk

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
}


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.close()


def lines(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


def rotate(desk: Desk, compress: Callable[[bytes], bytes], extension: str) -> None:
    """Rotate like logrotate with ``compress``, without ``delaycompress``."""
    for number in (3, 2, 1):
        old = desk.path(f"app.log.{number}.{extension}")
        if old.exists():
            old.rename(desk.path(f"app.log.{number + 1}.{extension}"))
    status = desk.path("app.log").stat()
    new = desk.path(f"app.log.1.{extension}")
    new.write_bytes(compress(desk.path("app.log").read_bytes()))
    os.utime(new, ns=(status.st_mtime_ns, status.st_mtime_ns))
    desk.path("app.log").unlink()


@pytest.mark.parametrize("extension", COMPRESSORS)
@pytest.mark.parametrize("rotations", [1, 2, 3])
@pytest.mark.parametrize("unread", [True, False], ids=["unread", "read"])
def test_compressed_files_are_read(desk: Desk, extension: str, rotations: int, unread: bool) -> None:
    """What was not shipped is read from the compressed files, and nothing is reported if nothing is lost."""
    compress = COMPRESSORS[extension]
    desk.write("app.log", lines(1, 3))
    desk.settle()
    last = 3
    for number in range(rotations):
        if unread or number:
            desk.write("app.log", lines(last + 1, last + 3))
            last += 3
        rotate(desk, compress, extension)
    desk.write("app.log", lines(last + 1, last + 3))
    for _ in range(2):
        desk.kill()
        desk.settle()
    assert desk.shipped == {"app": lines(1, last + 3).splitlines()}
    assert desk.complaints == []


def test_an_original_beside_its_compressed_file_is_read_once(desk: Desk) -> None:
    """The original is removed only after it is compressed, and may not have been read at all."""
    desk.write("app.log", lines(1, 3))
    desk.settle()
    desk.rename("app.log", "app.log.2")
    desk.write("app.log", lines(4, 6))
    content = desk.path("app.log").read_bytes()
    desk.rename("app.log", "app.log.1")
    desk.path("app.log.1.gz").write_bytes(gzip.compress(content))
    os.utime(desk.path("app.log.1.gz"), (desk.now, desk.now))
    desk.write("app.log", lines(7, 9))
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": lines(1, 9).splitlines()}


@pytest.mark.parametrize("pause", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("batches", [1, 100])
@pytest.mark.parametrize("steps", [0, 1, 2, 4])
@pytest.mark.parametrize("keeps_time", [True, False])
def test_a_compressed_file_is_never_read_again(
    desk: Desk, pause: float, batches: int, steps: int, keeps_time: bool
) -> None:
    """Wherever a kill comes after a rotation, even if no file is left and its inode is used again."""
    desk.write("app.log", lines(1, 3))
    desk.settle()
    last = 3
    for _ in range(3):
        desk.write("app.log", lines(last + 1, last + 3))
        last += 3
        for number in (3, 2, 1):
            if desk.path(f"app.log.{number}.gz").exists():
                desk.rename(f"app.log.{number}.gz", f"app.log.{number + 1}.gz")
        desk.rename("app.log", "app.log.1")
        desk.write("app.log", lines(last + 1, last + 3))
        last += 3
        for _ in range(2):
            desk.ship(pause, batches=batches)
        old, new = desk.path("app.log.1"), desk.path("app.log.1.gz")
        new.write_bytes(gzip.compress(old.read_bytes()))
        os.utime(new, (desk.now, old.stat().st_mtime if keeps_time else desk.now))
        desk.ship(pause, batches=batches)
        desk.delete("app.log.1")
        for _ in range(steps):
            desk.ship(pause, batches=batches)
        desk.kill()
        for _ in range(steps):
            desk.ship(pause, batches=batches)
        desk.kill()
    desk.settle()
    assert desk.shipped == {"app": lines(1, last).splitlines()}
    assert desk.complaints == []


def test_a_file_that_is_gone_is_known_for_a_moment(desk: Desk) -> None:
    """Its compressed file may be later than the last checkpoint; later checkpoints need not remember it."""
    desk.write("app.log", lines(1, 3))
    desk.settle()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", lines(4, 6))
    desk.ship(0.1)
    desk.delete("app.log.1")
    desk.ship(6.0)
    (stream,) = desk.discovery.streams.values()
    assert [position.offset for position in stream.completed.values()] == [len(lines(1, 3))]
    desk.settle()
    assert not stream.completed


def test_a_file_that_cannot_be_uncompressed_is_reported(desk: Desk) -> None:
    """It blocks nothing."""
    desk.write("app.log", lines(1, 3))
    desk.settle()
    desk.write("app.log", lines(4, 6))
    rotate(desk, lambda data: gzip.compress(data)[:-4], "gz")
    desk.write("new", lines(7, 9))
    desk.rename("new", "app.log")
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": [*lines(1, 3).splitlines(), *lines(7, 9).splitlines()]}
    assert len(desk.complaints) == 1


def test_a_compressed_file_does_not_fill_the_disk(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows without limit when it is uncompressed is not read."""
    monkeypatch.setattr(uncompressor, "MAX_UNCOMPRESSED", 100)
    desk.write("app.log", lines(1, 3))
    desk.settle()
    desk.write("app.log", lines(4, 100))
    rotate(desk, gzip.compress, "gz")
    desk.write("app.log", lines(101, 101))
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": [*lines(1, 3).splitlines(), "line 101"]}


@pytest.mark.parametrize("rotations", [1, 2])
def test_a_file_in_another_folder_is_found(desk: Desk, rotations: int) -> None:
    """logrotate's ``olddir``: the file is found by its inode and content, and others beside it by name."""
    desk.path("old").mkdir()
    desk.write("app.log", lines(1, 3))
    desk.settle()
    last = 3
    for _ in range(rotations):
        desk.write("app.log", lines(last + 1, last + 3))
        last += 3
        if desk.path("old/app.log.1").exists():
            desk.rename("old/app.log.1", "old/app.log.2")
        desk.rename("app.log", "old/app.log.1")
    desk.write("app.log", lines(last + 1, last + 3))
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": lines(1, last + 3).splitlines()}
    assert desk.complaints == []


def test_files_behind_a_link_are_found(tmp_path: Path) -> None:
    """A link to the file of the day: those of the days between are found by their date."""
    (tmp_path / "days").mkdir()
    desk = Desk(tmp_path, "current.log", roots=[tmp_path / "days"])
    link = desk.path("current.log")
    for day in range(1, 5):
        desk.write(f"days/app-2026-01-0{day}.log", lines(3 * day - 2, 3 * day))
        link.unlink(missing_ok=True)
        link.symlink_to(desk.path(f"days/app-2026-01-0{day}.log"))
        if day == 1:
            desk.settle()
            desk.write("days/app-2026-01-01.log", "late\n")
    desk.write("days/other-2026-01-03.log", "another series\n")
    desk.kill()
    desk.settle()
    texts = lines(1, 12).splitlines()
    assert desk.shipped == {"current": [*texts[:3], "late", *texts[3:]]}
    desk.close()
