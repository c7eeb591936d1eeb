"""Many files in one folder: the cost of each does not grow with their number."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.shipper_desk import Desk

FILES = 120


class ChangingFolder:
    """A folder that changes whenever it has been listed; counts the listings."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listings = 0
        self._folder = folder
        self._scandir = os.scandir
        monkeypatch.setattr(os, "scandir", self._list)

    def _list(self, path: Any) -> Any:
        self.listings += 1
        entries = self._scandir(path)
        (self._folder / f"{self.listings}.new").touch()
        return entries


@pytest.mark.parametrize("rotated", [False, True], ids=["new", "rotated"])
def test_new_files_in_a_changing_folder_take_a_few_listings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    """While files are created, no listing is up to date; another one for each file takes quadratic time."""
    desk = Desk(tmp_path)
    desk.write("first.log", "one\n")
    desk.settle()
    for number in range(FILES):
        if rotated:
            desk.write(f"{number}.log", "one\n")
            desk.rename(f"{number}.log", f"{number}.log.1")
        desk.write(f"{number}.log", "two\n")
    folder = ChangingFolder(tmp_path, monkeypatch)
    desk.discovery.scan(desk.now)
    assert len(desk.discovery.streams) == FILES + 1
    assert folder.listings < FILES / 2
    desk.settle()
    assert all(desk.shipped[str(number)] == ["one", "two"][not rotated :] for number in range(FILES))
    desk.close()


def test_a_restart_in_a_changing_folder_takes_a_few_listings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files of the previous run are looked for in the same listings, whatever names they have by now."""
    desk = Desk(tmp_path)
    for number in range(FILES):
        desk.write(f"{number}.log", "one\n")
    desk.settle()
    for number in range(FILES):
        desk.rename(f"{number}.log", f"{number}.log.1")
        desk.write(f"{number}.log", "two\n")
    desk.kill()
    folder = ChangingFolder(tmp_path, monkeypatch)
    desk.discovery.scan(desk.now)
    assert folder.listings < FILES / 2
    desk.settle()
    assert all(desk.shipped[str(number)] == ["one", "two"] for number in range(FILES))
    desk.close()


def test_a_restart_lists_a_folder_a_few_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Listing it for each file would take quadratic time."""
    desk = Desk(tmp_path)
    for number in range(FILES):
        desk.path(f"{number}.log").write_text("one\n")
    desk.settle()
    time.sleep(0.1)  # changes just before a listing make another one necessary
    desk.kill()
    calls = []
    scandir = os.scandir

    def count(path: Any) -> Any:
        calls.append(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", count)
    desk.ship()
    assert len(desk.discovery.streams) == FILES
    assert len(calls) < FILES / 2
    desk.close()
