"""Writers of rotating logs with numbered lines, each with its own kind of rotation."""

import os
import random
import shutil
import subprocess
import threading
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal

PADDING: Final = "x" * 100


Kind = Literal["rename", "copy", "compress", "link", "holes"]
"""How a file rotates: by renaming, by copytruncate, by renaming and compressing, or as a link to the file of
the day; the last kind has holes, as after crashes of its host."""


class Writer:
    """Writer of numbered lines that rotates its file.

    Args:
        path: path of the log.
        limit: size in bytes at which it rotates.
        rate: lines per second.
        choose: source of randomness.
        kind: how it rotates.
        keep: number of older files to keep.
    """

    def __init__(
        self,
        path: Path,
        limit: int,
        rate: float,
        choose: random.Random,
        *,
        kind: Kind = "rename",
        keep: int = 60,
    ) -> None:
        self.path = path
        self.written = 0
        self.rotations = 0
        self._limit = limit
        self._rate = rate
        self._choose = choose
        self._kind = kind
        self._day = date(2026, 1, 1)
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
                if self._kind == "holes" and self._choose.random() < 0.01:
                    os.ftruncate(handle, os.fstat(handle).st_size + self._choose.randrange(20, 100_000))
                if os.fstat(handle).st_size >= self._limit:
                    self.rotations += 1
                    handle = self._rotate(handle)
            time.sleep(0.005)
        os.close(handle)

    def _rotate(self, handle: int) -> int:
        """Rotate the file; return the descriptor to continue with."""
        if self._kind == "copy":
            copy_and_truncate(self.path, self._keep)
            return handle
        os.close(handle)
        if self._kind != "link":
            shift(self.path, self._keep, ".gz" if self._kind == "compress" else "")
            rotated = self.path.rename(self.path.with_name(f"{self.path.name}.1"))
            handle = self._open()
            if self._kind == "compress":
                subprocess.run(["gzip", rotated], check=True)
            return handle
        self._day += timedelta(days=1)
        return self._open()

    def _open(self) -> int:
        path = self.path
        if self._kind == "link":
            path = self.path.parent / "days" / f"{self.path.stem}-{self._day}.txt"
            path.parent.mkdir(exist_ok=True)
            path.touch()
            link = self.path.with_suffix(".new")
            link.symlink_to(path)
            link.rename(self.path)
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)


def shift(path: Path, keep: int, extension: str = "") -> None:
    """Give every older file the next number, and delete the oldest."""
    path.with_name(f"{path.name}.{keep}{extension}").unlink(missing_ok=True)
    for number in range(keep - 1, 0, -1):
        older = path.with_name(f"{path.name}.{number}{extension}")
        if older.exists():
            older.rename(path.with_name(f"{path.name}.{number + 1}{extension}"))


def copy_and_truncate(path: Path, keep: int) -> None:
    """Rotate like logrotate's copytruncate."""
    shift(path, keep)
    shutil.copyfile(path, path.with_name(f"{path.name}.1"))
    os.truncate(path, 0)
