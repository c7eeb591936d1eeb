"""One run of the shipper: its parts, what goes on beside it, and the line at the end."""

import asyncio
import contextlib
import functools
import glob
import os
import secrets
import sys
from collections.abc import Callable, Sequence
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper import status as standing
from tickertape.producers.shipper.files.discovery import Tail
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.rotation import source_of
from tickertape.producers.shipper.files.tailed_file import ROTATION_GRACE
from tickertape.producers.shipper.files.watch import Wake
from tickertape.producers.shipper.parsing.line_splitter import standard_input
from tickertape.producers.shipper.parsing.parser import Counts, Parser
from tickertape.producers.shipper.settings import STANDARD_INPUT, ShipSettings
from tickertape.producers.shipper.shipper import Files, Shipper
from tickertape.producers.shipper.sinks.dedupe import DedupeSink
from tickertape.producers.shipper.sinks.local_state import State
from tickertape.producers.shipper.sinks.sink import Checkpoint, Item, Known, Sink
from tickertape.producers.shipper.stdin_spool import Spool
from tickertape.producers.shipper.throttle import Throttle

from tickertape.process.console import say
from tickertape.process.limits import raise_descriptor_limit
from tickertape.process.metrics_port import MetricsPort
from tickertape.process.tasks import Tasks, unless

PROGRAM: Final = "ship"
SPARE_FILES: Final = 64
"""Open files for all else than the files that are followed."""

PROGRESS_INTERVAL: Final = 0.1


class DrySink:
    """Batches as lines on standard output."""

    async def load(self) -> dict[str, Known]:
        """Nothing was shipped yet."""
        return {}

    async def commit(self, items: Sequence[Item], checkpoint: Checkpoint, expected: int) -> int:
        """Write each event with its subject; see ``Sink.commit``."""
        for item in items:
            sys.stdout.write(f"{item.subject} {item.payload.decode()}\n")
        sys.stdout.flush()
        return checkpoint.count


async def work(
    settings: ShipSettings,
    sink: Sink,
    publisher: Publisher | None,
    stop: asyncio.Event,
    limit: int,
    state: State | None = None,
) -> int:
    """Ship until the input ends or ``stop`` is set.

    Args:
        settings: of the program.
        sink: where batches go.
        publisher: for the shipper's own health; None tells nobody.
        stop: ends it, after what is under way.
        limit: bytes of an event that the server takes.
        state: on this host; None keeps nothing.

    Returns:
        the exit code.

    Raises:
        ShipError: another process ships the same.
        CheckpointError: the state cannot be kept.
        ListenError: the port for metrics cannot be listened on, or is not any more.
    """
    known = await unless(stop.wait(), sink.load())
    if known is None:
        return 0
    counts = Counts()
    make = _maker(settings, counts, announces=isinstance(sink, DedupeSink))
    async with Tasks() as beside, contextlib.AsyncExitStack() as stack:
        files: Files
        ended: Callable[[], bool]
        piped = settings.paths == [STANDARD_INPUT]
        if piped:
            spool = files = _spool(settings, state, make, known)
            filling = beside.start(spool.fill(standard_input()))
            wake = Wake([])
            ended = filling.done
        else:
            paths = [os.path.abspath(path) for path in settings.paths]  # noqa: ASYNC240 - touches no disk
            files = Tail(
                paths, known, make, from_end=settings.from_end, max_open=_max_open(),
                complain=functools.partial(say, PROGRAM),
            )  # fmt: skip
            wake = Wake(paths)
            stack.callback(wake.stop)
            beside.start(wake.run())
            if not any(next(glob.iglob(path, recursive=True), None) for path in paths):
                waiting = "" if settings.once else " yet; waiting"
                say(PROGRAM, f"no file at {', '.join(settings.paths)}{waiting}")

            def ended() -> bool:
                return settings.once

        stack.callback(files.close)
        shipper = Shipper(files, sink, wake, limit, functools.partial(say, PROGRAM))
        if settings.metrics_port:
            collector = standing.ShipCollector(shipper, counts)
            port = MetricsPort(settings.metrics_host, settings.metrics_port, collector)
            beside.start(port.watch()).add_done_callback(lambda _: stop.set())
        if publisher is not None:
            beside.start(_report(settings, shipper, counts, publisher))
        if settings.once and sys.stderr.isatty():
            beside.start(_progress(shipper))
        await unless(stop.wait(), shipper.run(ended, once=settings.once or piped))
        if publisher is not None:
            await _tell(settings, shipper, counts, publisher)
            say(PROGRAM, _summary(shipper, counts))
    return 0


def _maker(
    settings: ShipSettings, counts: Counts, *, announces: bool
) -> Callable[[str, Known | None], FileStream]:
    run_id = secrets.token_hex(6)
    piped = settings.paths == [STANDARD_INPUT]
    parsing, shape = settings.parsing(), settings.shape()

    def make(path: str, known: Known | None) -> FileStream:
        source = settings.source or ("stdin" if piped else source_of(path))
        return FileStream(
            path,
            known,
            lambda: Parser(parsing, source, counts),
            Throttle(shape, path, source),
            run_id,
            announces=announces,
            grace=0.0 if piped else ROTATION_GRACE,
        )

    return make


def _spool(
    settings: ShipSettings,
    state: State | None,
    make: Callable[[str, Known | None], FileStream],
    known: dict[str, Known],
) -> Spool:
    name = f"stdin-{state.name if state is not None else secrets.token_hex(8)}"
    folder = settings.state_dir / name
    return Spool(folder, make(name, known.get(name)), settings.spool_size * 1024 * 1024)


def _max_open() -> int:
    """Files that can be followed: as many as this process may open, less some."""
    return max(SPARE_FILES, raise_descriptor_limit() - SPARE_FILES)


async def _report(settings: ShipSettings, shipper: Shipper, counts: Counts, publisher: Publisher) -> None:
    while True:
        await asyncio.sleep(settings.health_interval)
        await _tell(settings, shipper, counts, publisher)


async def _tell(settings: ShipSettings, shipper: Shipper, counts: Counts, publisher: Publisher) -> None:
    """Tell how the shipper stands, unless NATS is away."""
    with contextlib.suppress(TimeoutError, PublishError):
        async with asyncio.timeout(min(settings.health_interval, 2.0)):
            await publisher.publish(standing.health(shipper, counts, settings.host))


async def _progress(shipper: Shipper) -> None:
    """Show how much is shipped of what was there."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("shipping", total=None)
        most = 0
        while True:
            left = sum(lineage.lag for lineage in shipper.lineages)
            most = max(most, left)
            progress.update(task, total=most or None, completed=most - left)
            await asyncio.sleep(PROGRESS_INTERVAL)


def _summary(shipper: Shipper, counts: Counts) -> str:
    lineages = shipper.lineages
    parts = [f"events shipped: {sum(shipper.shipped.values())}, of {counts.lines} lines"]
    for number, words in (
        (sum(one.shaper.below for one in lineages), "below the least level"),
        (sum(one.shaper.suppressed for one in lineages), "held back by a rate"),
        (shipper.refused, "refused"),
        (sum(counts.redacted.values()), "redacted"),
    ):
        if number:
            parts.append(f"{words}: {number}")
    return ", ".join(parts)


__all__ = ["PROGRAM", "DrySink", "work"]
