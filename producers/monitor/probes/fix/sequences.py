"""Own sequence numbers of FIX sessions, kept between probes and between runs of the monitor.

The numbers that a peer sends are not kept: a probe needs no message again that it has missed.

Invariants:

1. A number is never used twice for different messages, even if the monitor is killed: before the first
   message of a session is sent, the file has a number beyond those that the session takes.
2. At any time, one process on this host uses a session.
"""

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final
from urllib.parse import quote

from tickertape.producers.monitor.probes.result import CannotProbe

from tickertape.errors import TickertapeError
from tickertape.process.files import write_hint
from tickertape.process.lockfile import acquire_lock

RESERVED: Final = 250
"""Numbers that are reserved before a session begins, which takes fewer. After a crash the peer requests the
others again, and is told that they are unused."""

_MAX_FILE_BYTES: Final = 4096


class SessionInUse(TickertapeError):
    """Attempt to use a session that is in use."""


@dataclass(slots=True)
class Numbers:
    """Numbers of a session that is in use.

    Attributes:
        next: number of the next message.
    """

    next: int = 1

    def take(self) -> int:
        """Return the number for a message."""
        self.next += 1
        return self.next - 1


class Sequences:
    """Sequence numbers of all sessions of a monitor."""

    def __init__(self) -> None:
        self._in_memory: dict[str, Numbers] = {}
        self._used: set[str] = set()

    @contextlib.asynccontextmanager
    async def use(self, session: str, folder: Path | None) -> AsyncIterator[Numbers]:
        """Hold a session until the block ends.

        Args:
            session: text that identifies the session.
            folder: folder with a file for each session, created if missing; None keeps numbers in memory.

        Raises:
            SessionInUse: the session is in use, here or by another process.
            CannotProbe: the numbers cannot be read or kept.
        """
        if session in self._used:
            raise SessionInUse(f"{session} is in use")
        self._used.add(session)
        try:
            if folder is None:
                yield self._in_memory.setdefault(session, Numbers())
                return
            path = folder / f"{quote(session, safe='@:')}.json"
            # In a thread, as the folder may be on a slow disk.
            lock, numbers = await asyncio.to_thread(_begin, path, session)
            try:
                yield numbers
            finally:
                await asyncio.to_thread(_end, path, session, numbers, lock)
        finally:
            self._used.discard(session)


def _begin(path: Path, session: str) -> tuple[IO[str], Numbers]:
    try:
        lock = acquire_lock(path.with_suffix(".lock"))
    except BlockingIOError:
        raise SessionInUse(f"{session} is in use") from None
    except OSError as error:
        raise _cannot_keep(path, error) from None
    try:
        first = _read(path)
        _write(path, session, first + RESERVED)
    except OSError as error:
        lock.close()
        raise _cannot_keep(path, error) from None
    except CannotProbe:
        lock.close()
        raise
    return lock, Numbers(first)


def _end(path: Path, session: str, numbers: Numbers, lock: IO[str]) -> None:
    # If that fails, the numbers that were reserved are skipped.
    with lock, contextlib.suppress(OSError):
        _write(path, session, numbers.next)


def _read(path: Path) -> int:
    try:
        with path.open("rb") as file:
            number = json.loads(file.read(_MAX_FILE_BYTES))["next"]
    except FileNotFoundError:
        return 1
    except (ValueError, TypeError, KeyError):
        number = None
    if type(number) is not int or number < 1:
        raise CannotProbe(f"sequence numbers in {path} are damaged", "delete the file, and set 'adopt: true'")
    return number


def _write(path: Path, session: str, following: int) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump({"session": session, "next": following}, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _cannot_keep(path: Path, error: OSError) -> CannotProbe:
    reason = f"sequence numbers cannot be kept in {path.parent}: {(error.strerror or str(error)).lower()}"
    return CannotProbe(reason, write_hint(error, "set --fix-state-dir to a folder of this user"))
