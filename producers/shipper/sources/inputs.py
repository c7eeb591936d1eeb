"""Inputs of a shipper, as its settings name them: files, standard input, a journal, and syslog."""

import asyncio
import contextlib
import functools
import os
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final

from tickertape.producers.shipper.content.compression import COMPRESSED
from tickertape.producers.shipper.encodings.names import UTF_8
from tickertape.producers.shipper.files.discovery import FileDiscovery
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.files.globs import expand
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.given_paths import check_given_paths
from tickertape.producers.shipper.journal.journal_reader import JournalError, JournalReader, JournalSettings
from tickertape.producers.shipper.journal.journal_stream import JournalSource, JournalStream
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts
from tickertape.producers.shipper.settings import STANDARD_INPUT, ShipSettings
from tickertape.producers.shipper.sinks.local_state import LocalState
from tickertape.producers.shipper.sinks.sink import StoredCheckpoint
from tickertape.producers.shipper.sources.combined_source import CombinedSource
from tickertape.producers.shipper.sources.file_source import FileSource
from tickertape.producers.shipper.spool import Spool
from tickertape.producers.shipper.standard_input import open_standard_input
from tickertape.producers.shipper.syslog.receiver import SyslogReceiver
from tickertape.producers.shipper.syslog.tls import server_context
from tickertape.producers.shipper.throttle import Throttle
from tickertape.producers.shipper.timing import ROTATION_GRACE, Timing

from tickertape.durations import parse_duration
from tickertape.process.console import print_notice
from tickertape.process.limits import raise_descriptor_limit
from tickertape.process.tasks import Tasks
from tickertape.text import printable

PROGRAM: Final = "ship"
"""Name of the program in notices."""

SPARE_FILES: Final = 64
"""File descriptors that are reserved for everything but tailed files."""

MAX_ENCODING_REPORTS: Final = 100
"""Notices of detected encodings; there can be many thousands of files."""


class Inputs:
    """Inputs of one shipper.

    Args:
        settings: options of the program.
        stored: checkpoints by path.
        counts: counters of the parsers.
        state: state on this host; None keeps none.
        tasks: group for the tasks that read the inputs.
        stack: closes the inputs.
        announce_generations: commit the generation of a file in a checkpoint before its first batch.
        stop: set if an input cannot continue; leaving ``tasks`` then raises its error.

    Attributes:
        source: source of the event streams.
        watcher: wakes the shipper early.

    Raises:
        GivenPathError: a path without wildcards is not that of a file.
        ListenError: a port is not available.
        CertificateError: the certificate of a port cannot be used.
    """

    def __init__(
        self,
        settings: ShipSettings,
        stored: dict[str, StoredCheckpoint],
        counts: ParserCounts,
        state: LocalState | None,
        tasks: Tasks,
        stack: contextlib.AsyncExitStack,
        *,
        announce_generations: bool,
        stop: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._stored = stored
        self._counts = counts
        self._tasks = tasks
        self._stack = stack
        self._stop = stop
        self._run_id = secrets.token_hex(6)
        self._announce_generations = announce_generations
        self._reported: set[tuple[str, str]] = set()
        self._warn = functools.partial(print_notice, PROGRAM)
        self._ended: list[Callable[[], bool]] = []
        folder = settings.state_dir / (state.name if state is not None else secrets.token_hex(8))
        self._spools = os.path.abspath(folder)
        paths = [] if settings.is_piped else settings.absolute_paths()
        self.watcher = FileWatcher(paths)
        stack.callback(self.watcher.stop)
        tasks.start(self.watcher.run())
        sources: list[FileSource] = []
        if settings.is_piped:
            sources.append(self._open_standard_input())
        elif paths:
            sources.append(self._open_files(paths))
        if (journal := settings.journal_settings()) is not None:
            sources.append(self._open_journal(journal))
        if settings.syslog:
            sources.append(self._open_syslog())
        if settings.otlp:  # its requests are not read from a stream; see ``otlp``
            self._ended.append(lambda: False)
        self.source: FileSource = sources[0] if len(sources) == 1 else CombinedSource(sources)
        stack.callback(self.source.close)

    def ended(self) -> bool:
        """Return whether no more input will come."""
        return all(ended() for ended in self._ended)

    def _open_files(self, paths: list[str]) -> FileDiscovery:
        settings = self._settings
        check_given_paths(paths, once=settings.once, known=self._stored)
        roots = Roots(paths, map(os.path.abspath, settings.root), self._warn)
        files = FileDiscovery(
            paths, self._stored, functools.partial(self._make_stream, roots=roots), roots=roots,
            from_end=settings.from_end, max_open=_max_open(),
            forget_after=parse_duration(settings.forget_after), warn=self._warn,
        )  # fmt: skip
        pairs = zip(settings.paths, paths, strict=True)
        unmatched = [given for given, path in pairs if not _matches_any_file(path, roots)]
        if unmatched:
            waiting = "" if settings.once else " yet; waiting for one"
            self._warn(f"no file matches {', '.join(unmatched)}{waiting}")
        self._ended.append(lambda: settings.once)
        return files

    def _make_stream(
        self, path: str, stored: StoredCheckpoint | None, *, roots: Roots, spooled: str = "", format: str = ""
    ) -> FileStream:
        settings = self._settings
        source = settings.source or spooled or settings.source_of(path)
        parse_settings = settings.parse_settings(STANDARD_INPUT if spooled else path)
        if format and parse_settings.format == "auto":
            parse_settings = replace(parse_settings, format=format, multiline="off")
        return FileStream(
            path,
            stored,
            lambda: Parser(
                parse_settings,
                source,
                self._counts,
                on_encoding=functools.partial(self._report_encoding, path),
            ),
            Throttle(settings.throttle_settings(), path, source),
            self._run_id,
            roots=roots,
            announce_generations=self._announce_generations,
            # Only this process writes the segments of a spool, so a closed one is complete.
            timing=Timing(0.0 if spooled else ROTATION_GRACE, parse_duration(settings.half_line_after)),
        )

    def _report_encoding(self, path: str, name: str) -> None:
        if (path, name) not in self._reported and len(self._reported) < MAX_ENCODING_REPORTS:
            self._reported.add((path, name))
            shown = printable(path)
            self._warn(f"{shown}: the encoding is {name}; if it is not, set --encoding")

    def _open_spool(self, kind: str, encoding: str, format: str = "") -> Spool:
        """Open the spool of an input that cannot be read again.

        Args:
            kind: name of the input, and source of its lines.
            encoding: its encoding, or "auto".
            format: format of its lines, unless another one is set.
        """
        folder = Path(os.path.dirname(self._spools)) / f"{kind}-{os.path.basename(self._spools)}"
        roots = Roots([f"{folder}/*"], [], self._warn)
        stream = self._make_stream(
            folder.name, self._stored.get(folder.name), roots=roots, spooled=kind, format=format
        )
        size = self._settings.spool_size * 1024 * 1024
        return Spool(folder, stream, size, self._warn, encoding, self.watcher.notify)

    def _open_standard_input(self) -> Spool:
        spool = self._open_spool("stdin", self._settings.encoding)
        source = open_standard_input()
        self._stack.callback(source.close)
        self._ended.append(self._tasks.start(spool.fill(source)).done)
        return spool

    def _open_syslog(self) -> Spool:
        settings = self._settings
        spool = self._open_spool("syslog", settings.encoding, "syslog")
        receiver = SyslogReceiver(self._warn)
        self._stack.callback(receiver.close)
        addresses = settings.syslog_addresses()
        tls = None
        if settings.syslog_cert is not None:
            tls = server_context(settings.syslog_cert, settings.syslog_key, settings.syslog_client_ca)
        for bound in receiver.open(addresses, tls, self._tasks):
            self._warn(f"receiving syslog on {bound}")
        for address in addresses:
            if address.is_open:
                self._warn(f"{address}: every machine that reaches it can write log events; use tls://")
        self._tasks.start(spool.fill(receiver))
        self._ended.append(lambda: False)
        return spool

    def _open_journal(self, journal: JournalSettings) -> JournalSource:
        settings = self._settings
        checkpoint = self._stored.get(journal.name)
        cursor = checkpoint.checkpoint.cursor if checkpoint is not None else ""
        notify = functools.partial(self.watcher.notify, journal.name)
        reader = JournalReader(journal, cursor, notify, self._warn)
        # ``journalctl`` writes UTF-8, whatever the encoding of the files is.
        parse_settings = replace(settings.parse_settings(journal.name), encoding=UTF_8)
        source = settings.source or "journal"
        stream = JournalStream(
            journal.name,
            checkpoint,
            reader,
            lambda: Parser(parse_settings, source, self._counts),
            Throttle(settings.throttle_settings(), journal.name, source),
            self._run_id,
        )
        self._tasks.start(self._read_journal(reader))
        self._ended.append(lambda: reader.ended)
        return JournalSource(stream)

    async def _read_journal(self, reader: JournalReader) -> None:
        try:
            await reader.run()
        except JournalError:
            self._stop.set()  # the error is raised when the shipper has stopped
            raise


def _matches_any_file(pattern: str, roots: Roots) -> bool:
    def follow(folder: str) -> bool:
        with contextlib.suppress(OSError):
            return bool(roots.resolve(folder))
        return False

    found = (path for path, _ in expand(pattern, lambda *_: None, follow))
    return any(
        os.path.lexists(path) and not os.path.isdir(path) and not path.endswith(COMPRESSED) for path in found
    )


def _max_open() -> int:
    """Raise the limit of open files; return the number of files that can be tailed."""
    descriptors = raise_descriptor_limit()
    return max(1, descriptors - min(SPARE_FILES, descriptors // 2))
