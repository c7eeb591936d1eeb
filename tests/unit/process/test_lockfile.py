"""Locks on folders."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tickertape.process.lockfile import acquire_lock

HOLD = """\
import sys
from pathlib import Path
from tickertape.process.lockfile import acquire_lock
with acquire_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_at_a_time_has_a_lock(tmp_path: Path) -> None:
    """Only one process holds a lock, the other learns the holder's pid, and any exit releases it."""
    path = tmp_path / "a" / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError):
            acquire_lock(path)
        assert path.read_text() == f"{holder.pid}\n"
    finally:
        holder.kill()
        holder.communicate()
    with acquire_lock(path):
        assert path.read_text() == f"{os.getpid()}\n"
    acquire_lock(path).close()


def test_a_lock_that_cannot_be_created_is_not_reported_as_held(tmp_path: Path) -> None:
    """A lock file that cannot be created is not reported as held by another process."""
    (tmp_path / "a").write_text("")
    with pytest.raises(OSError, match="a") as caught:
        acquire_lock(tmp_path / "a" / "lock")
    assert not isinstance(caught.value, BlockingIOError)


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    """A lock file that is a link to another file leaves that file as it is."""
    target = tmp_path / "target"
    target.write_text("kept")
    (tmp_path / "lock").symlink_to(target)
    with pytest.raises(OSError, match="lock") as caught:
        acquire_lock(tmp_path / "lock")
    assert not isinstance(caught.value, BlockingIOError)
    assert target.read_text() == "kept"
