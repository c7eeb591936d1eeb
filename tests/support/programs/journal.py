"""A journal of systemd that a test writes, through ``systemd-journal-remote``."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = Path("/lib/systemd/systemd-journal-remote")
"""Program of the package systemd-journal-remote."""

needs_journal = pytest.mark.skipif(not PROGRAM.exists(), reason="systemd-journal-remote is not installed")

_BOOT: Final = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
FIRST: Final = 1_750_000_000_000_000
"""Microseconds since 1970 of the first entry; each is a millisecond later."""


class Journal:
    """Writer of one file of a journal.

    Args:
        path: the file, whose name ends in ".journal".
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._count = 0
        self._writer = subprocess.Popen(
            [PROGRAM, f"--output={path}", "-"], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def add(self, message: str | bytes, **fields: str | bytes | list[str]) -> None:
        """Write an entry.

        Args:
            message: what it says.
            fields: further fields; a list repeats a field.
        """
        stdin = self._writer.stdin
        assert stdin is not None
        stamps = {
            "__REALTIME_TIMESTAMP": str(FIRST + 1000 * self._count),
            "__MONOTONIC_TIMESTAMP": str(1000 + self._count),
            "_BOOT_ID": _BOOT,
        }
        self._count += 1
        for name, values in {**stamps, "MESSAGE": message, "PRIORITY": "6", **fields}.items():
            for value in values if isinstance(values, list) else [values]:
                data = value.encode() if isinstance(value, str) else value
                if b"\n" in data or not data.isascii():  # the binary form of the export format
                    stdin.write(b"%b\n%b%b\n" % (name.encode(), len(data).to_bytes(8, "little"), data))
                else:
                    stdin.write(b"%b=%b\n" % (name.encode(), data))
        stdin.write(b"\n")
        stdin.flush()

    def close(self) -> None:
        """End the file."""
        assert self._writer.stdin is not None
        self._writer.stdin.close()
        self._writer.wait()


@contextmanager
def journal(path: Path) -> Iterator[Journal]:
    """Write a file of a journal."""
    path.parent.mkdir(exist_ok=True)
    made = Journal(path)
    try:
        yield made
    finally:
        made.close()
