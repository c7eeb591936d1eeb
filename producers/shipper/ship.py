"""The log shipper as a program: reads lines, sends them as events, and remembers what is acknowledged.

Invariants:

1. A position is made to last only when every event before it is acknowledged.
2. NATS away: nothing is read beyond the window of events in flight, so memory is bounded.
3. An event's ``Nats-Msg-Id`` is a function of its file's generation and its offset: what is read again after
   a restart is not in the stream twice (within its duplicate window).
"""

import asyncio
import contextlib
import functools
import os
import secrets
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import CliPositionalArg

from contracts import subjects
from contracts.connect import NatsSettings, shown
from contracts.streams import Names, StreamsError
from producers.errors import InvalidEvent, ProducerError, PublishRejected
from producers.lines import Splitter, standard_input
from producers.link import Ticket
from producers.program import ensure_streams, say, stop_on_signals
from producers.publisher import FOREVER, Publisher
from producers.shipper.checkpoint import Checkpoint, CheckpointError, Progress
from producers.shipper.followed import Line
from producers.shipper.parse import MAX_LINE_BYTES, level_of, parse
from producers.shipper.tail import Tail

PROGRAM: Final = "ship"
POLL_INTERVAL: Final = 0.2
"""Seconds between two looks at files that were read to their end."""

LOOK_INTERVAL: Final = 1.0
"""Seconds between two expansions of the globs; a file that is followed loses nothing meanwhile."""

SAVE_INTERVAL: Final = 1.0
"""Seconds between two checkpoints: what a crash makes read again."""

STOP_GRACE: Final = 3.0
"""Seconds at the end for acknowledgements."""

MAX_PENDING: Final = 2048
"""Events in flight."""

_TOO_LARGE: Final = 10054
"""JetStream's code for an event over the stream's limit: no retry can help it, others must not wait."""

_STANDARD_INPUT: Final = "-"


def _source(text: str) -> str:
    subjects.escape(text)
    return text


def _level(value: object) -> object:
    return level_of(value) or value


def _state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "tickertape"


class ShipSettings(NatsSettings):
    """Ship the lines of files, or of standard input, as log events."""

    paths: CliPositionalArg[Annotated[list[str], Field(min_length=1)]]
    """Files and globs, or - for standard input."""
    source: Annotated[str, AfterValidator(_source)] | None = None
    """Source of lines that name none; else the file's name without its ending."""
    state_dir: Path = Field(default_factory=_state_dir)
    """Folder for what must be kept on this host: how far each file is shipped."""
    level: Annotated[Literal["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"], BeforeValidator(_level)] = "DEBUG"
    """Least level that is shipped."""
    once: bool = False
    """Ship what is there, and end."""
    from_end: bool = False
    """At the very first run, skip what the files hold already."""


async def run(settings: ShipSettings) -> int:
    """Run until the input ends, or until SIGTERM or SIGINT; return the exit code."""
    checkpoint: Checkpoint | None = None
    if _STANDARD_INPUT in settings.paths and len(settings.paths) > 1:
        say(PROGRAM, "'-' stands alone: ship standard input or files, not both")
        return 2
    try:
        tail = None
        if settings.paths != [_STANDARD_INPUT]:
            paths = [os.path.abspath(path) for path in settings.paths]  # noqa: ASYNC240 - touches no disk
            checkpoint = Checkpoint(settings.state_dir, "\0".join(sorted(paths)))
            tail = Tail(
                paths,
                known=checkpoint.load(),
                from_end=settings.from_end,
                complain=functools.partial(say, PROGRAM),
            )
        return await _run(settings, tail, checkpoint)
    except (CheckpointError, StreamsError, OSError) as error:
        say(PROGRAM, str(error))
        return 1
    finally:
        if checkpoint is not None:
            checkpoint.close()


async def _run(settings: ShipSettings, tail: Tail | None, checkpoint: Checkpoint | None) -> int:
    url = shown(settings.nats_url)
    with stop_on_signals() as stop:
        publisher = Publisher(
            settings.nats_url,
            creds=settings.nats_creds,
            prefix=settings.subject_prefix,
            name="tickertape-ship",
            deadline=FOREVER,
            max_pending=MAX_PENDING,
            on_down=lambda reason: say(
                PROGRAM, f"NATS at {url} is away ({reason}); waiting, nothing is lost"
            ),
            on_up=lambda: say(PROGRAM, f"connected to NATS at {url}"),
        )
        async with publisher:
            shipper = Shipper(settings, publisher, tail, checkpoint)
            working = asyncio.create_task(shipper.run(), name="ship")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            failing = asyncio.create_task(shipper.failed.wait(), name="failure")
            try:
                await asyncio.wait({working, stopping, failing}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (working, stopping, failing):
                    task.cancel()
                await asyncio.wait({working})
                await publisher.close(STOP_GRACE)
                shipper.end()
            if not working.cancelled():
                working.result()
        say(PROGRAM, shipper.summary())
        return 1 if shipper.failed.is_set() else 0


class Shipper:
    """Lines in, acknowledged events out.

    Args:
        settings: of the program.
        publisher: entered, without a deadline; the caller closes it.
        tail: the files; None for standard input.
        checkpoint: for the files.
    """

    def __init__(
        self, settings: ShipSettings, publisher: Publisher, tail: Tail | None, checkpoint: Checkpoint | None
    ) -> None:
        self.failed = asyncio.Event()
        """Set when a line was refused for a reason that would lose others, too."""
        self._settings = settings
        self._publisher = publisher
        self._tail = tail
        self._checkpoint = checkpoint
        self._least = subjects.LEVELS.index(settings.level)
        self._shipped = 0
        self._below = 0
        self._refused = 0
        self._saved_at = 0.0

    def summary(self) -> str:
        """One line for the end."""
        text = f"{self._shipped} lines acknowledged, {self._below} below {self._settings.level}"
        return f"{text}, {self._refused} refused" if self._refused else text

    async def run(self) -> None:
        """Ship until the input ends, which files do only with ``once``."""
        client = await self._publisher.connected()
        for note in (await ensure_streams(client, Names(self._settings.subject_prefix))).notes:
            say(PROGRAM, note)
        if self._tail is None:
            async for line in _standard_lines():
                await self._ship(line)
        else:
            await self._follow(self._tail)
        with contextlib.suppress(ProducerError):  # told where it happened
            await self._publisher.flush()

    def end(self) -> None:
        """Make the last positions last, and let go of the files."""
        if self._tail is not None:
            self._save(self._tail)
            self._tail.close()

    async def _follow(self, tail: Tail) -> None:
        clock = asyncio.get_running_loop().time
        look_at = clock()
        told = False
        while True:
            now = clock()
            if now >= look_at:
                look_at = now + LOOK_INTERVAL
                if tail.look(now):
                    self._save(tail)
                elif not tail.seen and not told:
                    told = True
                    paths = ", ".join(self._settings.paths)
                    say(PROGRAM, f"no file at {paths}" + ("" if self._settings.once else " yet; waiting"))
            idle = True
            for line in tail.read(now):
                idle = False
                await self._ship(line)
            if clock() - self._saved_at >= SAVE_INTERVAL:
                self._save(tail)
            if idle:
                if self._settings.once and tail.drained:
                    for line in tail.finish():
                        await self._ship(line)
                    return
                await asyncio.sleep(POLL_INTERVAL)
            else:
                await asyncio.sleep(0)

    async def _ship(self, line: Line) -> None:
        """Send a line, waiting for room among those in flight."""
        if not line.data.strip():
            line.progress.done(line.end)
            return
        source = self._settings.source or line.source
        parsed = parse(line.data, source=source, now=time.time(), cut=line.cut)
        if subjects.LEVELS.index(parsed.level) < self._least:
            self._below += 1
            line.progress.done(line.end)
            return
        try:
            ticket = await self._publisher.submit(parsed.subject, parsed.encode(), msg_id=line.id)
        except InvalidEvent as error:
            self._skip(line, error)
            return
        ticket.add_done_callback(functools.partial(self._answered, line))

    def _answered(self, line: Line, ticket: Ticket) -> None:
        if ticket.cancelled():
            return
        error = ticket.exception()
        if error is None:
            self._shipped += 1
            line.progress.done(line.end)
        elif isinstance(error, PublishRejected) and error.code == _TOO_LARGE:
            self._skip(line, error)
        elif not self._publisher.closed and not self.failed.is_set():
            # Going on would make a hole; a restart begins at this line.
            say(PROGRAM, f"stopped at a line of {line.source!r}: {error}")
            self.failed.set()

    def _skip(self, line: Line, error: BaseException) -> None:
        self._refused += 1
        if self._refused == 1:
            say(PROGRAM, f"a line of {line.source!r} is left out: {error} (further ones are counted only)")
        line.progress.done(line.end)

    def _save(self, tail: Tail) -> None:
        assert self._checkpoint is not None
        self._checkpoint.save(tail.positions())
        self._saved_at = asyncio.get_running_loop().time()


async def _standard_lines() -> AsyncIterator[Line]:
    # What was piped in cannot be read again: there is no position to keep, and no id to repeat.
    run = secrets.token_hex(8)
    splitter = Splitter(MAX_LINE_BYTES)
    progress = Progress(0)

    async with contextlib.aclosing(standard_input()) as pieces:
        async for piece in pieces:
            for raw in splitter.feed(piece):
                progress.begin(raw.end)
                yield Line("stdin", f"{run}-{raw.start}", raw.data, raw.cut, raw.end, progress)
    for raw in splitter.finish():
        progress.begin(raw.end)
        yield Line("stdin", f"{run}-{raw.start}", raw.data, raw.cut, raw.end, progress)
