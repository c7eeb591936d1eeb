"""Names that are absent for a while: their files are not shipped again, and they are forgotten in time."""

import os
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest
from tickertape.producers.shipper import absence
from tickertape.producers.shipper.absence import DEFAULT_FORGET_AFTER

from tests.support.shipper_desk import Desk

DAY = 86_400.0


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "logs").mkdir()
    desk = Desk(tmp_path, "logs/*")
    yield desk
    desk.close()


def lines(first: int, last: int) -> str:
    return "".join(f"line {number}\n" for number in range(first, last + 1))


@pytest.mark.parametrize("restarted", ["before", "meanwhile", "never"])
@pytest.mark.parametrize("mount", [False, True], ids=["folder", "mount"])
@pytest.mark.parametrize("days", [0.0001, 6.0])
def test_a_folder_that_is_away_for_a_while(desk: Desk, restarted: str, mount: bool, days: float) -> None:
    """Files of a folder or mount that comes back are continued, whatever happened to them elsewhere."""
    desk.write("logs/app.log", lines(1, 3))
    desk.ship()
    desk.rename("logs/app.log", "logs/app.log.1")
    desk.write("logs/app.log", lines(4, 6))
    desk.settle()
    desk.rename("logs", "elsewhere")
    if mount:
        desk.path("logs").mkdir()  # the mount point
    if restarted == "before":
        desk.kill()
    for _ in range(6):
        desk.ship(days * DAY / 6)
    if restarted == "meanwhile":
        desk.kill()
        desk.ship()
    desk.write("elsewhere/app.log", lines(7, 9))
    desk.rename("elsewhere/app.log.1", "elsewhere/app.log.2")
    desk.rename("elsewhere/app.log", "elsewhere/app.log.1")
    desk.write("elsewhere/app.log", lines(10, 12))
    if mount:
        desk.path("logs").rmdir()
    desk.rename("elsewhere", "logs")
    desk.settle()
    assert desk.shipped == {"app": lines(1, 12).splitlines()}
    assert desk.complaints == []


@pytest.mark.parametrize("restarted", [False, True])
def test_an_absent_name_is_forgotten_in_time(desk: Desk, restarted: bool) -> None:
    """A file that comes back later is a new one; until then only the checkpoint is kept."""
    desk.write("logs/app.log", lines(1, 3))
    desk.settle()
    desk.rename("logs", "elsewhere")
    desk.path("logs").mkdir()
    for _ in range(8):
        desk.ship(DEFAULT_FORGET_AFTER / 7)
        desk.ship(absence._SAVED_AFTER)
        if restarted:
            desk.kill()
    desk.settle()
    assert desk.discovery.streams == {}
    desk.path("logs").rmdir()
    desk.rename("elsewhere", "logs")
    desk.settle()
    assert desk.shipped == {"app": lines(1, 3).splitlines() * 2}


def test_a_deleted_file_is_not_mistaken_for_its_successor(desk: Desk) -> None:
    """A file with the same content and a reused inode is a new one."""
    for _ in range(3):
        desk.write("logs/job.log", "started\ndone\n")
        desk.settle()
        desk.delete("logs/job.log")
        desk.settle()
        # What is remembered, in case that it was compressed, has no inode.
        (stream,) = desk.discovery.streams.values()
        assert not any(device for device, _ in stream.completed)
    assert desk.shipped == {"job": ["started", "done"] * 3}


@pytest.mark.parametrize("restarted", [False, True])
def test_a_folder_that_cannot_be_read_says_nothing(
    desk: Desk, restarted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are known whenever it can be read again, and those that are open are read meanwhile."""
    desk.write("logs/app.log", lines(1, 3))
    desk.settle()
    scandir, lstat = os.scandir, os.lstat
    logs = str(desk.path("logs"))

    def check(path: str) -> str:
        if str(path).startswith(logs):
            raise PermissionError(13, "Permission denied", path)
        return path

    monkeypatch.setattr(os, "scandir", lambda path: scandir(check(path)))
    monkeypatch.setattr(os, "lstat", lambda path, **more: lstat(check(path), **more))
    if restarted:
        desk.kill()
    for _ in range(3):
        desk.ship(DEFAULT_FORGET_AFTER)
    monkeypatch.undo()
    desk.write("logs/app.log", lines(4, 6))
    desk.settle()
    assert desk.shipped == {"app": lines(1, 6).splitlines()}
    assert desk.complaints == [f"{logs}: cannot be accessed: Permission denied; check its permissions"]


def test_a_device_with_another_number_is_the_same(desk: Desk) -> None:
    """File systems can have another device number after they are mounted again."""
    desk.write("logs/app.log", lines(1, 3))
    desk.settle()
    body = orjson.loads(desk.kept[str(desk.path("logs/app.log"))])
    body["files"][0]["device"] += 1
    desk.kept[str(desk.path("logs/app.log"))] = orjson.dumps(body)
    desk.write("logs/app.log", lines(4, 6))
    desk.kill()
    desk.settle()
    assert desk.shipped == {"app": lines(1, 6).splitlines()}


def test_a_short_absence_is_not_saved(desk: Desk) -> None:
    """A rotation takes less, and ten thousand files would need as many checkpoints."""
    desk.write("logs/app.log", lines(1, 3))
    desk.settle()
    (stream,) = desk.discovery.streams.values()
    sequence = stream.sequence
    desk.rename("logs", "elsewhere")
    desk.ship(1.0)
    desk.rename("elsewhere", "logs")
    desk.settle()
    assert stream.sequence == sequence
    desk.rename("logs", "elsewhere")
    desk.ship(1.0)
    desk.ship(absence._SAVED_AFTER + 1.0)
    assert stream.sequence == sequence + 1
