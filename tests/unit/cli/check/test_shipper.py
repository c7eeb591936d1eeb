"""Checks of a shipper: its files, and what the health and the lock of its host name say."""

import os
from pathlib import Path

import pytest
from tickertape.producers.shipper.sinks.local_state import LocalState, lock_path, state_key, state_path

from tickertape.cli.check import shipper
from tickertape.process.lockfile import is_locked


def test_readable_files_are_one_finding(tmp_path: Path) -> None:
    """Files that can be read are not listed, and folders that a glob matches are skipped."""
    (tmp_path / "app.log").write_text("one\n")
    (tmp_path / "old.log").mkdir()
    (finding,) = shipper.check_paths([f"{tmp_path}/*.log"], [])
    assert (finding.state, finding.text) == ("ok", f"all files that match {tmp_path}/*.log can be read")


def test_many_findings_are_counted(tmp_path: Path) -> None:
    """A folder full of pipes does not fill the screen."""
    for number in range(shipper.MAX_FINDINGS + 3):
        os.mkfifo(tmp_path / f"{number}.log")
    found = shipper.check_paths([f"{tmp_path}/*.log"], [])
    assert len(found) == shipper.MAX_FINDINGS + 1
    assert found[-1].text == "3 more paths cannot be read"


@pytest.mark.parametrize(
    ("age", "conflicts", "running", "state"),
    [
        (None, 0, False, "ok"),
        (shipper.RECENT + 1, 9, False, "ok"),
        (1.0, 0, True, "ok"),
        (1.0, 0, False, "warn"),
        (1.0, 1, True, "error"),
    ],
)
def test_a_host_name_is_judged(age: float | None, conflicts: int, running: bool, state: str) -> None:
    """Recent health without the lock is another shipper's; conflicts prove that there are two."""
    assert shipper._host_finding("web1", age, conflicts, running=running).state == state


def test_the_lock_of_a_running_shipper_is_seen(tmp_path: Path) -> None:
    """The lock is seen while the state is in use; looking creates nothing."""
    key = state_key("web1", ["/b", "/a"])
    path = lock_path(state_path(tmp_path / "state", key))
    assert not is_locked(path)
    assert not path.parent.exists()
    state = LocalState(tmp_path / "state", state_key("web1", ["/a", "/b"]))
    assert is_locked(path)
    state.close()
    assert not is_locked(path)
