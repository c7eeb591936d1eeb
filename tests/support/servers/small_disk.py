"""A small disk (tmpfs) that tests fill, free, and run out of inodes; it needs the right to mount.

Without that right a test is skipped, except in CI, where it fails.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_BLOCK: Final = 64 * 1024


class SmallDisk:
    """A mounted disk.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<SmallDisk {self.path}>"

    def fill(self, except_bytes: int = 0) -> None:
        """Write until no byte is left, or only a few."""
        with (self.path / "filler").open("ab", buffering=0) as file:
            size = _BLOCK
            while size:
                try:
                    if file.write(bytes(size)) < size:
                        size //= 2
                except OSError:
                    size //= 2
            file.truncate(file.tell() - except_bytes)

    def use_inodes(self) -> None:
        """Create empty files until no inode is left."""
        (self.path / "files").mkdir(exist_ok=True)
        number = 0
        while True:
            try:
                (self.path / "files" / str(number)).touch()
            except OSError:
                return
            number += 1

    def free(self) -> None:
        """Delete what ``fill`` and ``use_inodes`` have written."""
        (self.path / "filler").unlink(missing_ok=True)
        for file in (self.path / "files").glob("*"):
            file.unlink()

    def remount(self, options: str) -> None:
        """Change options such as ``ro`` and ``size=1g``."""
        subprocess.run(["mount", "-o", f"remount,{options}", self.path], check=True)


@contextmanager
def small_disk(path: Path, size: str, inodes: int | None = None) -> Iterator[SmallDisk]:
    """Attach a disk of a size such as ``40m``, and detach it; skip the test if mounting is not allowed."""
    path.mkdir(parents=True, exist_ok=True)
    options = f"size={size}" + (f",nr_inodes={inodes}" if inodes else "")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = f"needs the right to mount a tmpfs: {done.stderr.strip()}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


__all__ = ["SmallDisk", "small_disk"]
