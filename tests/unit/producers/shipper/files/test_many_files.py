"""Many files in one folder: the cost of each does not grow with their number."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.shipper_desk import Desk

FILES = 120


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
