"""Reader of the journal: runs ``journalctl``, and keeps the entries that are not taken yet.

Invariants:

1. Entries are read in order, each once, from the entry after a cursor; what is no longer in the journal is
   reported.
2. Memory holds ``MAX_BUFFERED`` bytes and one entry: while they are not taken, nothing more is read.
"""

import asyncio
import contextlib
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tickertape.producers.shipper.journal.entries import Entry, is_same, read_entry

from tickertape.errors import OperatorError
from tickertape.process import child
from tickertape.process.tasks import Tasks
from tickertape.text import printable

CHUNK_BYTES: Final = 256 * 1024
"""Bytes that one read requests."""

MAX_BUFFERED: Final = 4 * 1024 * 1024
"""Bytes of entries that wait to be taken, from which nothing more is read."""

MAX_ENTRY_BYTES: Final = 16 * 1024 * 1024
"""Bytes of an entry as JSON; a larger one, such as a core dump, is left out."""

RETRY_DELAY: Final = 5.0
"""Seconds until ``journalctl`` is started again after it has failed."""

_STOP_GRACE: Final = 2.0
"""Seconds for ``journalctl`` to exit."""

_MAX_REPORTED: Final = 100
"""Lines of ``journalctl`` for the operator that are remembered, so that each is reported once."""

_HINT: Final = "check that journalctl is installed, and that this user may read the journal"


class JournalError(OperatorError):
    """Failure to read the journal."""


@dataclass(frozen=True, slots=True)
class JournalSettings:
    """Journal that is read.

    Attributes:
        units: names or patterns of units; empty for all entries.
        folder: folder of the journal's files; None for the journal of this host.
        follow: wait for further entries.
        from_end: without a cursor, begin with the entries that follow.
    """

    units: tuple[str, ...] = ()
    folder: str | None = None
    follow: bool = True
    from_end: bool = False

    @property
    def name(self) -> str:
        """Name of the journal in checkpoints and reports."""
        return "journal" if self.folder is None else f"journal:{self.folder}"

    def command(self, *options: str) -> list[str]:
        """Return a command that prints entries."""
        where = [] if self.folder is None else [f"--directory={self.folder}"]
        return ["journalctl", "--output=json", "--all", "--no-pager", *where, *options]


class JournalReader:
    """Entries of a journal after a cursor.

    Args:
        settings: what is read.
        cursor: last entry that is not read again; empty to begin at the start, or at the end.
        notify: called when an entry can be taken, or the last one was read.
        warn: called with a line for the operator.

    Attributes:
        ended: all entries have been read, as ``follow`` is off.
        buffered: bytes of the entries that can be taken.
    """

    def __init__(
        self, settings: JournalSettings, cursor: str, notify: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self.ended = False
        self.buffered = 0
        self._settings = settings
        self._cursor = cursor
        self._notify = notify
        self._warn = warn
        self._entries: deque[Entry] = deque()
        self._taken = asyncio.Event()
        self._process: Process | None = None
        # Increases when another process has read further; what an earlier journalctl prints is then old.
        self._epoch = 0
        self._reported: dict[str, None] = {}

    def __len__(self) -> int:
        """Return the number of entries that can be taken."""
        return len(self._entries)

    def take(self, count: int) -> list[Entry]:
        """Remove and return up to a number of entries."""
        taken = [self._entries.popleft() for _ in range(min(count, len(self._entries)))]
        self.buffered -= sum(entry.size for entry in taken)
        if self.buffered < MAX_BUFFERED:
            self._taken.set()
        return taken

    def seek(self, cursor: str) -> None:
        """Continue after another entry; entries that were not taken are discarded."""
        self._cursor = cursor
        self._epoch += 1
        self.ended = False
        self._entries.clear()
        self.buffered = 0
        self._taken.set()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def run(self) -> None:
        """Read until cancelled, or until the last entry without ``follow``.

        Raises:
            JournalError: ``journalctl`` cannot be started, or fails without ``follow``.
        """
        while True:
            epoch = self._epoch
            await self._report_vacuumed()
            problem = await self._read(epoch)
            if epoch != self._epoch:
                continue
            if not self._settings.follow:
                if problem:
                    raise JournalError(f"{self._settings.name} cannot be read: {problem}", _HINT)
                self.ended = True
                self._notify()
                return
            problem = problem or "journalctl ended"
            self._report(f"{self._settings.name} cannot be read: {problem}; retrying, no entries are lost")
            await asyncio.sleep(RETRY_DELAY)

    async def _report_vacuumed(self) -> None:
        """Report that the entry of the cursor is no longer in the journal: later ones may be missing, too."""
        if not self._cursor:
            return
        first = await self._read_first(self._settings.command(f"--cursor={self._cursor}", "--lines=1"))
        if first is not None and not is_same(first, self._cursor):
            self._report(
                f"{self._settings.name}: the entries up to the last checkpoint were removed from the journal;"
                " those that followed may be lost"
            )

    async def _read_first(self, command: list[str]) -> str | None:
        """Return the cursor of the first entry that a command prints; None if there is none."""
        process = await self._start(command)
        async with Tasks() as tasks:
            tasks.start(self._report_errors(process))
            assert process.stdout is not None
            output = await process.stdout.read()
            await process.wait()
        with contextlib.suppress(ValueError):
            return read_entry(output.partition(b"\n")[0]).cursor
        return None

    async def _read(self, epoch: int) -> str:
        """Run ``journalctl`` until it ends; return why it failed, or nothing."""
        options = [f"--unit={unit}" for unit in self._settings.units]
        skipped = self._cursor
        if skipped:
            # Not --after-cursor, which leaves out the next entry if that of the cursor is gone.
            options.append(f"--cursor={skipped}")
        elif self._settings.from_end:
            options.append("--lines=0")
        if self._settings.follow:
            options += ["--follow"] if self._settings.from_end and not skipped else ["--follow", "--no-tail"]
        process = self._process = await self._start(self._settings.command(*options))
        errors: list[str] = []
        try:
            async with Tasks() as tasks:
                reporting = tasks.start(self._report_errors(process, errors))
                assert process.stdout is not None
                await self._read_entries(process.stdout, epoch, skipped)
                await reporting
                code = await process.wait()
        finally:
            self._process = None
            await child.stop(process, _STOP_GRACE)
        return "; ".join(errors[-1:]) or f"journalctl exited with code {code}" if code else ""

    async def _start(self, command: list[str]) -> Process:
        try:
            return await child.start(*command, output=PIPE)
        except OSError as error:
            raise JournalError(f"{command[0]} cannot be started: {error.strerror}", _HINT) from None

    async def _read_entries(self, output: asyncio.StreamReader, epoch: int, skipped: str) -> None:
        rest = b""
        is_too_large = False
        while data := await output.read(CHUNK_BYTES):
            *lines, rest = (rest + data if rest else data).split(b"\n")
            if epoch != self._epoch:
                return
            for line in lines:
                if is_too_large:
                    is_too_large = False
                    continue
                skipped = self._add(line, skipped)
            if len(rest) > MAX_ENTRY_BYTES:
                self._report(
                    f"{self._settings.name}: an entry of more than {MAX_ENTRY_BYTES} bytes is left out"
                )
                is_too_large, rest = True, b""
            if self._entries:
                self._notify()
            while self.buffered >= MAX_BUFFERED and epoch == self._epoch:
                self._taken.clear()
                await self._taken.wait()

    def _add(self, line: bytes, skipped: str) -> str:
        """Add an entry, unless it is the one of a cursor; return the cursor that is still to be skipped."""
        try:
            entry = read_entry(line)
        except ValueError:
            self._report(f"{self._settings.name}: journalctl printed what is not an entry: {line[:80]!r}")
            return skipped
        if skipped and is_same(entry.cursor, skipped):
            return ""
        # What a restarted journalctl prints follows the last entry, also if this one was not taken yet.
        self._cursor = entry.cursor
        self._entries.append(entry)
        self.buffered += entry.size
        return ""

    async def _report_errors(self, process: Process, errors: list[str] | None = None) -> None:
        assert process.stderr is not None
        while line := await process.stderr.readline():
            text = printable(line.decode(errors="replace").strip())
            if text and text != "-- No entries --":
                self._report(f"journalctl: {text}")
                if errors is not None:
                    errors[:] = [text]

    def _report(self, text: str) -> None:
        """Report a line, unless it was reported before."""
        if text not in self._reported:
            self._reported[text] = None
            if len(self._reported) > _MAX_REPORTED:
                del self._reported[next(iter(self._reported))]
            self._warn(text)
