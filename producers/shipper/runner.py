"""Runner of the shipper: assembles its parts, publishes its health and metrics, and reports the result."""

import asyncio
import contextlib
import functools
import os
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from tickertape.producers.sdk.errors import PublishDenied, PublishError
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper import status as shipper_status
from tickertape.producers.shipper.content.compression import COMPRESSED
from tickertape.producers.shipper.encodings.names import UTF_8
from tickertape.producers.shipper.file_source import FileSource
from tickertape.producers.shipper.files.discovery import FileDiscovery
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.files.globs import expand
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.files.rotation import source_of
from tickertape.producers.shipper.given_paths import check_given_paths
from tickertape.producers.shipper.journal.journal_reader import JournalError, JournalReader, JournalSettings
from tickertape.producers.shipper.journal.journal_source import JournalSource
from tickertape.producers.shipper.journal.journal_stream import JournalStream
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts
from tickertape.producers.shipper.settings import STANDARD_INPUT, ShipSettings
from tickertape.producers.shipper.shipper import Shipper
from tickertape.producers.shipper.sinks.dedupe import DedupeSink
from tickertape.producers.shipper.sinks.local_state import LocalState
from tickertape.producers.shipper.sinks.sink import Sink, StoredCheckpoint
from tickertape.producers.shipper.standard_input import open_standard_input
from tickertape.producers.shipper.stdin_spool import StdinSpool
from tickertape.producers.shipper.throttle import Throttle
from tickertape.producers.shipper.timing import ROTATION_GRACE, Timing

from tickertape.durations import parse_duration
from tickertape.errors import EXIT_FAILURE
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL
from tickertape.net.host_names import HostNames
from tickertape.net.metrics_port import MetricsPort
from tickertape.process import shutdown
from tickertape.process.console import is_terminal, print_notice
from tickertape.process.limits import raise_descriptor_limit
from tickertape.process.tasks import Tasks, run_until_stopped
from tickertape.process.terminal import Terminal
from tickertape.rate_limit import RepeatFilter
from tickertape.text import printable

PROGRAM: Final = "ship"
"""Name of the program in notices."""

SPARE_FILES: Final = 64
"""File descriptors that are reserved for everything but tailed files."""

PROGRESS_INTERVAL: Final = 0.1
"""Seconds between two updates of the progress bar."""

MAX_ENCODING_REPORTS: Final = 100
"""Notices of detected encodings; there can be many thousands of files."""


async def run_shipper(
    settings: ShipSettings,
    sink: Sink,
    publisher: Publisher | None,
    stop: asyncio.Event,
    limit: int,
    state: LocalState | None = None,
) -> int:
    """Ship until the input ends or ``stop`` is set.

    Args:
        settings: options of the program.
        sink: destination of batches.
        publisher: publishes the health of the shipper; None for none.
        stop: ends the shipper once the batches in flight are acknowledged.
        limit: maximum size of an event in bytes that the server accepts.
        state: state on this host; None keeps none.

    Returns:
        The exit code: 0, that of the signal if the input should have ended, and has not, or that of a failure
        if a file could not be read with ``once``.

    Raises:
        ShipError: another process ships the same files.
        GivenPathError: a path without wildcards is not that of a file.
        CheckpointError: the state cannot be saved.
        ListenError: the metrics port cannot be opened, or listening on it has failed.
    """
    # Loading waits for NATS for as long as it takes, so a signal must be able to end it.
    stored = await run_until_stopped(stop.wait(), sink.load())
    if stored is None:
        return stopped_code(settings)
    counts = ParserCounts()
    piped = settings.paths == [STANDARD_INPUT]
    paths = [_spool_folder(settings, state) + "/*"] if piped else settings.absolute_paths()
    if not piped:
        check_given_paths(paths, once=settings.once, known=stored)
    warn = functools.partial(print_notice, PROGRAM)
    roots = Roots(paths, map(os.path.abspath, settings.root), warn)
    # The message ids of DedupeSink contain the generation, so it must be stored before any line is sent.
    make_stream = _stream_factory(settings, counts, roots, announce_generations=isinstance(sink, DedupeSink))
    async with Tasks() as tasks, contextlib.AsyncExitStack() as stack:
        files: FileSource
        input_ended: Callable[[], bool]
        if piped:
            spool = files = _open_spool(settings, os.path.dirname(paths[0]), make_stream, stored, warn)
            source = open_standard_input()
            stack.callback(source.close)
            fill_task = tasks.start(spool.fill(source))
            watcher = FileWatcher([])
            input_ended = fill_task.done
        else:
            files = FileDiscovery(
                paths, stored, make_stream, roots=roots, from_end=settings.from_end, max_open=_max_open(),
                forget_after=parse_duration(settings.forget_after), warn=warn,
            )  # fmt: skip
            watcher = FileWatcher(paths)
            stack.callback(watcher.stop)
            tasks.start(watcher.run())
            pairs = zip(settings.paths, paths, strict=True)
            unmatched = [given for given, path in pairs if not _matches_any_file(path, roots)]
            if unmatched:
                waiting = "" if settings.once else " yet; waiting for one"
                print_notice(PROGRAM, f"no file matches {', '.join(unmatched)}{waiting}")

            def input_ended() -> bool:
                return settings.once

        stack.callback(files.close)
        journal_settings = settings.journal_settings()
        if journal_settings is not None:
            reader, files = _open_journal(settings, journal_settings, counts, stored, files, watcher, warn)
            tasks.start(_read_journal(reader, stop))
            files_ended = input_ended

            def input_ended() -> bool:
                return files_ended() and reader.ended

        shipper = Shipper(files, sink, watcher, limit, warn)
        if settings.metrics_port:
            collector = shipper_status.ShipCollector(shipper, counts)
            names = HostNames(settings.metrics_allowed_hosts)
            port = MetricsPort(settings.metrics_host, settings.metrics_port, collector, names)
            # The watch ends only with an error, which leaving ``tasks`` raises.
            tasks.start(port.watch()).add_done_callback(lambda _: stop.set())
        if publisher is not None:
            denials = RepeatFilter(DENIAL_REPORT_INTERVAL)
            publish_health = functools.partial(_publish_health, settings, shipper, counts, publisher, denials)
            tasks.start(_publish_health_periodically(settings.health_interval, publish_health))
        if settings.once and is_terminal():
            tasks.start(_show_progress(shipper))
        finished = await run_until_stopped(stop.wait(), _ship_all(shipper, input_ended, settings))
        # The last health event shows the final numbers, so it follows the last batch.
        if publisher is not None:
            await publish_health()
            print_notice(PROGRAM, _summary(shipper, counts))
    if finished and settings.once and files.unreadable:
        return EXIT_FAILURE  # their lines are not shipped, and each is reported
    return 0 if finished else stopped_code(settings)


def stopped_code(settings: ShipSettings) -> int:
    """Return the exit code of a shipper that a signal has stopped."""
    follows = not settings.once and settings.paths != [STANDARD_INPUT]
    return 0 if follows else shutdown.interrupted_code()


async def _ship_all(shipper: Shipper, input_ended: Callable[[], bool], settings: ShipSettings) -> bool:
    await shipper.run(input_ended, once=settings.once or settings.paths == [STANDARD_INPUT])
    return True


def _matches_any_file(pattern: str, roots: Roots) -> bool:
    def follow(folder: str) -> bool:
        with contextlib.suppress(OSError):
            return bool(roots.resolve(folder))
        return False

    found = (path for path, _ in expand(pattern, lambda *_: None, follow))
    return any(
        os.path.lexists(path) and not os.path.isdir(path) and not path.endswith(COMPRESSED) for path in found
    )


def _stream_factory(
    settings: ShipSettings, counts: ParserCounts, roots: Roots, *, announce_generations: bool
) -> Callable[[str, StoredCheckpoint | None], FileStream]:
    run_id = secrets.token_hex(6)
    reported: set[tuple[str, str]] = set()
    piped = settings.paths == [STANDARD_INPUT]
    throttle_settings = settings.throttle_settings()

    def report_encoding(path: str, name: str) -> None:
        if (path, name) not in reported and len(reported) < MAX_ENCODING_REPORTS:
            reported.add((path, name))
            shown = printable(path)
            print_notice(PROGRAM, f"{shown}: the encoding is {name}; if it is not, set --encoding")

    def make_stream(path: str, stored: StoredCheckpoint | None) -> FileStream:
        source = settings.source or ("stdin" if piped else source_of(path))
        parse_settings = settings.parse_settings(STANDARD_INPUT if piped else path)
        return FileStream(
            path,
            stored,
            lambda: Parser(
                parse_settings, source, counts, on_encoding=functools.partial(report_encoding, path)
            ),
            Throttle(throttle_settings, path, source),
            run_id,
            roots=roots,
            announce_generations=announce_generations,
            # Only this process writes the segments of standard input, so a closed one is complete.
            timing=Timing(0.0 if piped else ROTATION_GRACE, parse_duration(settings.half_line_after)),
        )

    return make_stream


def _spool_folder(settings: ShipSettings, state: LocalState | None) -> str:
    name = f"stdin-{state.name if state is not None else secrets.token_hex(8)}"
    return os.path.abspath(settings.state_dir / name)


def _open_spool(
    settings: ShipSettings,
    folder: str,
    make_stream: Callable[[str, StoredCheckpoint | None], FileStream],
    stored: dict[str, StoredCheckpoint],
    warn: Callable[[str], None],
) -> StdinSpool:
    name = os.path.basename(folder)
    return StdinSpool(
        Path(folder),
        make_stream(name, stored.get(name)),
        settings.spool_size * 1024 * 1024,
        warn,
        settings.encoding,
    )


async def _read_journal(reader: JournalReader, stop: asyncio.Event) -> None:
    try:
        await reader.run()
    except JournalError:
        stop.set()  # the error is raised when the shipper has stopped
        raise


def _open_journal(
    settings: ShipSettings,
    journal: JournalSettings,
    counts: ParserCounts,
    stored: dict[str, StoredCheckpoint],
    files: FileSource,
    watcher: FileWatcher,
    warn: Callable[[str], None],
) -> tuple[JournalReader, JournalSource]:
    checkpoint = stored.get(journal.name)
    cursor = checkpoint.checkpoint.cursor if checkpoint is not None else ""
    reader = JournalReader(journal, cursor, functools.partial(watcher.notify, journal.name), warn)
    # ``journalctl`` writes UTF-8, whatever the encoding of the files is.
    parse_settings = replace(settings.parse_settings(journal.name), encoding=UTF_8)
    source = settings.source or "journal"
    stream = JournalStream(
        journal.name,
        checkpoint,
        reader,
        lambda: Parser(parse_settings, source, counts),
        Throttle(settings.throttle_settings(), journal.name, source),
        secrets.token_hex(6),
    )
    return reader, JournalSource(files, stream)


def _max_open() -> int:
    """Raise the limit of open files; return the number of files that can be tailed."""
    descriptors = raise_descriptor_limit()
    return max(1, descriptors - min(SPARE_FILES, descriptors // 2))


async def _publish_health_periodically(interval: float, publish: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval)
        await publish()


async def _publish_health(
    settings: ShipSettings,
    shipper: Shipper,
    counts: ParserCounts,
    publisher: Publisher,
    denials: RepeatFilter,
) -> None:
    """Publish the health of the shipper, unless NATS is unreachable."""
    try:
        async with asyncio.timeout(min(settings.health_interval, 2.0)):
            await publisher.publish(shipper_status.health_event(shipper, counts, settings.host))
    except PublishDenied as error:
        if denials.allow(str(error), asyncio.get_running_loop().time()):
            print_notice(PROGRAM, str(error))
    except (TimeoutError, PublishError):
        pass  # reported by the connection, or by the batches that fail likewise


async def _show_progress(shipper: Shipper) -> None:
    """Show a progress bar of the bytes that are shipped."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True) as progress:
        task = progress.add_task("shipping", total=None)
        total = 0
        while True:
            lag = sum(stream.lag for stream in shipper.streams)
            total = max(total, lag)
            progress.update(task, total=total or None, completed=total - lag)
            await asyncio.sleep(PROGRESS_INTERVAL)


def _summary(shipper: Shipper, counts: ParserCounts) -> str:
    streams = shipper.streams
    parts = [f"events shipped: {sum(shipper.shipped.values())}, of {counts.lines} lines"]
    for count, label in (
        (sum(stream.throttle.below_level for stream in streams), "below the minimum level"),
        (sum(stream.throttle.suppressed for stream in streams), "suppressed by a rate limit"),
        (shipper.rejected, "rejected"),
        (sum(counts.redacted.values()), "redacted"),
    ):
        if count:
            parts.append(f"{label}: {count}")
    return ", ".join(parts)


__all__ = ["PROGRAM", "run_shipper", "stopped_code"]
