"""Dry run of the shipper: reports what it would read in each file, or prints the events."""

import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from typing import Final

import orjson
from tickertape.producers.shipper.content.compression import COMPRESSED
from tickertape.producers.shipper.dry_run.examine import Examination, FileReport
from tickertape.producers.shipper.dry_run.report import Report
from tickertape.producers.shipper.files.globs import expand
from tickertape.producers.shipper.files.roots import ForbiddenPath, PathChanged, Roots
from tickertape.producers.shipper.given_paths import check_given_paths
from tickertape.producers.shipper.parsing.parser import Parser
from tickertape.producers.shipper.position import Key, key_of
from tickertape.producers.shipper.settings import STANDARD_INPUT, ShipSettings
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent, StoredCheckpoint
from tickertape.producers.shipper.standard_input import CHUNK_BYTES, open_standard_input
from tickertape.producers.shipper.throttle import Throttle

from tickertape.errors import EXIT_FAILURE
from tickertape.process import shutdown
from tickertape.process.console import print_json, print_notice
from tickertape.process.tasks import run_until_stopped

PROGRAM: Final = "ship"
"""Name of the program in notices."""

EXAMINED_BYTES: Final = 4 * 1024 * 1024
"""Bytes of each file that are read without ``--once``."""


class PrintingSink:
    """Sink that prints events on standard output, one JSON object each."""

    async def load(self) -> dict[str, StoredCheckpoint]:
        """Return no checkpoints: a dry run starts at the beginning."""
        return {}

    async def commit(self, events: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Print each event with its subject; see ``Sink.commit``."""
        for event in events:
            print_json(orjson.dumps({"subject": event.subject, "event": orjson.Fragment(event.payload)}))
        return checkpoint.count


async def report_files(settings: ShipSettings, stop: asyncio.Event) -> int:
    """Report what the shipper would read.

    Args:
        settings: options of the program.
        stop: ends the dry run.

    Returns:
        The exit code: 0, that of a failure if a file cannot be read, or that of the signal.

    Raises:
        GivenPathError: a path without wildcards is not that of a file.
        OSError: standard input cannot be read.
    """
    return await _DryRun(settings, stop).run()


class _DryRun:
    def __init__(self, settings: ShipSettings, stop: asyncio.Event) -> None:
        self._settings = settings
        self._stop = stop
        self._limit = None if settings.once else EXAMINED_BYTES
        self._now = time.time()
        self._report = Report(zone=settings.zone, is_limited=not settings.once)

    async def run(self) -> int:
        settings = self._settings
        if settings.paths == [STANDARD_INPUT]:
            with tempfile.TemporaryFile() as copy:
                await self._copy_input(copy.fileno())
                await self._examine(STANDARD_INPUT, os.dup(copy.fileno()))
        else:
            paths = settings.absolute_paths()
            check_given_paths(paths, once=True)
            roots = Roots(paths, map(os.path.abspath, settings.root))
            await self._examine_files(paths, roots)
        if self._stop.is_set() and settings.paths != [STANDARD_INPUT]:
            return shutdown.interrupted_code()
        self._report.finish()
        if self._stop.is_set():
            return shutdown.interrupted_code()
        return EXIT_FAILURE if self._report.has_failed else 0

    async def _examine_files(self, patterns: list[str], roots: Roots) -> None:
        """Report on each file that the patterns match, in their order."""
        seen: set[Key] = set()
        unlisted: list[FileReport] = []

        def follow(folder: str) -> bool:
            with contextlib.suppress(OSError):
                return bool(roots.resolve(folder))
            return False

        def record(folder: str, error: OSError) -> None:
            unlisted.append(FileReport(folder, problem=f"cannot be listed: {error.strerror}"))

        for given, pattern in zip(self._settings.paths, patterns, strict=True):
            found = _files([path for path, _ in expand(pattern, record, follow)])
            paths = [path for path in found if not path.endswith(COMPRESSED)]
            self._report.skip_compressed(len(found) - len(paths))
            if not paths:
                print_notice(PROGRAM, f"no file matches {given}")
            for path in paths:
                await asyncio.sleep(0)
                if self._stop.is_set():
                    return
                try:
                    fd = roots.open(path)
                except (ForbiddenPath, PathChanged, OSError) as error:
                    self._add(_unreadable(path, error))
                    continue
                key = key_of(os.fstat(fd))
                if key in seen:
                    os.close(fd)
                    continue
                seen.add(key)
                await self._examine(path, fd)
        for folder in unlisted:
            self._add(folder)

    async def _examine(self, path: str, fd: int) -> None:
        """Read a file and report what it contains."""
        settings = self._settings
        piped = path == STANDARD_INPUT
        source, parse_settings = settings.source_of(path), settings.parse_settings(path)
        # Rates depend on when lines are written.
        throttle = Throttle(replace(settings.throttle_settings(), rates={}), path, source)
        examination = Examination(
            path,
            source,
            lambda counts, observer: Parser(parse_settings, source, counts, observer),
            lambda event: throttle.admit(event, self._now),
            self._now,
        )
        try:
            for _ in examination.read(fd, self._limit):
                # Signals are handled between two parts of a file.
                await asyncio.sleep(0)
                if self._stop.is_set() and not piped:
                    return
        except OSError as error:
            examination.report.problem = f"cannot be read: {error.strerror}"
        self._add(examination.report)

    def _add(self, report: FileReport) -> None:
        if report.problem and report.is_failure:
            print_notice(PROGRAM, f"{report.path}: {report.problem}")
        self._report.add(report)

    async def _copy_input(self, fd: int) -> None:
        """Copy standard input to a file, up to the limit, until its end or a signal."""
        reader = open_standard_input()
        size = 0
        try:
            # One part more than is examined, which shows that there is more.
            while self._limit is None or size < self._limit + CHUNK_BYTES:
                if await run_until_stopped(self._stop.wait(), _wait(reader.wait())) is None:
                    return
                data = reader.read()
                if data == b"":
                    return
                size += os.write(fd, data or b"")
        finally:
            reader.close()


def _unreadable(path: str, error: ForbiddenPath | PathChanged | OSError) -> FileReport:
    """Return the report on a file that cannot be opened."""
    if isinstance(error, (ForbiddenPath, PathChanged, FileNotFoundError)):
        # Links that lead elsewhere or nowhere are no failure of the shipper either.
        reason = "it has just been replaced" if isinstance(error, PathChanged) else error.strerror
        return FileReport(path, problem=f"not read: {reason}", is_failure=False)
    return FileReport(path, problem=f"cannot be read: {error.strerror}")


def _files(paths: list[str]) -> list[str]:
    """Return the paths that are not those of folders, which a glob matches as well."""
    return [path for path in paths if not os.path.isdir(path)]


async def _wait(ready: Awaitable[None]) -> bool:
    """Wait, and return True, which ``run_until_stopped`` does not return when it is stopped."""
    await ready
    return True
