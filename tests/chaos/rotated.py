"""Writers of rotating logs with numbered lines, each with its own kind of rotation."""

import os
import random
import shutil
import threading
import time
from pathlib import Path
from typing import Final

PADDING: Final = "x" * 100


class Writer:
    """Writer of numbered lines that rotates its file by renaming, or by copying and truncating.

    Args:
        path: path of the log.
        limit: size in bytes at which it rotates.
        rate: lines per second.
        choose: source of randomness.
        copies: whether it copies and truncates.
        keep: number of older files to keep.
    """

    def __init__(
        self,
        path: Path,
        limit: int,
        rate: float,
        choose: random.Random,
        *,
        copies: bool = False,
        keep: int = 60,
    ) -> None:
        self.path = path
        self.written = 0
        self.rotations = 0
        self._limit = limit
        self._rate = rate
        self._choose = choose
        self._copies = copies
        self._keep = keep
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"writer {path.name}")

    def __enter__(self) -> "Writer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop after the current line."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        handle = self._open()
        began = time.monotonic()
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self._rate)
            while self.written < due and not self._stop.is_set():
                self.written += 1
                line = f"{self.path.stem} {self.written} {PADDING}\n".encode()
                # Occasionally write a line in two parts.
                half = self._choose.randrange(len(line)) if self._choose.random() < 0.05 else 0
                if half:
                    os.write(handle, line[:half])
                os.write(handle, line[half:])
                if os.fstat(handle).st_size >= self._limit:
                    self.rotations += 1
                    if self._copies:
                        copy_and_truncate(self.path, self._keep)
                    else:
                        shift(self.path, self._keep)
                        self.path.rename(self.path.with_name(f"{self.path.name}.1"))
                        os.close(handle)
                        handle = self._open()
            time.sleep(0.005)
        os.close(handle)

    def _open(self) -> int:
        return os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def shift(path: Path, keep: int) -> None:
    """Give every older file the next number, and delete the oldest."""
    path.with_name(f"{path.name}.{keep}").unlink(missing_ok=True)
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}"))


def copy_and_truncate(path: Path, keep: int) -> None:
    """Rotate like logrotate's copytruncate."""
    shift(path, keep)
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
