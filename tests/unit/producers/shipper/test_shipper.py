"""Smaller parts of the shipper: limit of the spool, replaced paths, poll interval and metrics."""

import asyncio
import errno
import io
import itertools
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tickertape.contracts.events import Status
from tickertape.producers.shipper.dry_run.run import PrintingSink
from tickertape.producers.shipper.files.batch import Batch
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.files.folder_listings import FolderListings
from tickertape.producers.shipper.files.roots import PathChanged, Roots
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.position import key_of
from tickertape.producers.shipper.runner import run_shipper
from tickertape.producers.shipper.settings import ShipSettings
from tickertape.producers.shipper.shipper import DRAIN_POLL_INTERVAL, POLL_INTERVAL, ShipError, Shipper
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent, StoredCheckpoint
from tickertape.producers.shipper.spool import Spool, SpoolError
from tickertape.producers.shipper.status import ShipCollector, health_event, print_health
from tickertape.producers.shipper.throttle import Throttle, ThrottleSettings
from tickertape.producers.shipper.timing import Timing

from tests.support.other_thread import changing
from tests.support.patience import PATIENCE
from tests.support.shipper_desk import PLAIN, Desk
from tickertape.process.tasks import Tasks
from tickertape.process.terminal import Terminal


def stream(name: str, folder: Path) -> FileStream:
    counts = ParserCounts()
    parser = lambda: Parser(PLAIN, "test", counts)  # noqa: E731
    throttle = Throttle(ThrottleSettings(), name, "test")
    return FileStream(name, None, parser, throttle, "run", roots=Roots([f"{folder}/*"]), timing=Timing(0.0))


class Chunks:
    """Input that consists of given chunks."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    async def wait(self) -> None:
        """Let other tasks run."""
        await asyncio.sleep(0)

    def read(self) -> bytes | None:
        """Return the next chunk."""
        return next(self._chunks, b"")

    def confirm(self) -> None:
        """Do nothing."""


def test_a_full_spool_applies_backpressure(tmp_path: Path) -> None:
    """A full spool stops reading from the pipe until its content is shipped, and no line is lost."""
    file_stream = stream("stdin-test", tmp_path / "spool")
    spool = Spool(tmp_path / "spool", file_stream, limit=10_000)
    produced: list[int] = []

    def chunks() -> Iterator[bytes]:
        for number in range(100):
            produced.append(number)
            yield (f"line {number} " + "x" * 990).encode() + b"\n"

    async def main() -> list[str]:
        fill_task = asyncio.create_task(spool.fill(Chunks(chunks())))
        await asyncio.sleep(0.2)
        assert len(produced) <= 12, "the spool holds ten chunks of a thousand bytes"
        shipped: list[str] = []
        now = time.time()
        async with asyncio.timeout(PATIENCE):
            while not (fill_task.done() and not file_stream.chain):
                now += 0.1
                spool.scan(now)
                while (batch := file_stream.next_batch(now, finish=True)) is not None:
                    shipped += [item.payload.decode() for item in batch.events]
                    file_stream.mark_shipped(batch, 1)
                await asyncio.sleep(0.001)
        spool.scan(now + 1)
        spool.close()
        return shipped

    shipped = asyncio.run(main())
    assert [f"line {number} " in text for number, text in enumerate(shipped)] == [True] * 100
    assert not (tmp_path / "spool").exists()


def test_a_replaced_path_is_detected(tmp_path: Path) -> None:
    """A path that is renamed or replaced between scanning and opening raises PathChanged, because a rotation
    must not swap two files.
    """
    path = tmp_path / "app.log"
    path.write_text("old")
    ((_, found),) = FolderListings().siblings(str(path))
    path.rename(tmp_path / "app.log.1")
    roots = Roots([str(path)])
    with pytest.raises(PathChanged):
        roots.open_same(str(path), key_of(found))
    path.write_text("new")
    with pytest.raises(PathChanged):
        roots.open_same(str(path), key_of(found))


def test_the_poll_interval_is_short_when_a_line_is_due(tmp_path: Path) -> None:
    """The poll interval is short when a pending line is due, so that it does not wait for the next poll."""
    desk = Desk(tmp_path, parsing=ParseSettings())
    shipper = Shipper(desk.discovery, PrintingSink(), FileWatcher([]), 1_000, print)

    async def poll() -> bool:
        async with Tasks() as tasks:
            return shipper._poll(tasks, desk.now)

    assert asyncio.run(poll())
    shipper._scan_at = float("inf")
    assert shipper._poll_delay() == pytest.approx(POLL_INTERVAL, abs=0.1)
    desk.write("app.log", "INFO one\n")
    desk.ship()
    (file,) = next(iter(desk.discovery.streams.values())).chain
    assert file.flush_at < float("inf")
    desk.discovery.streams[str(tmp_path / "app.log")].chain[0]._grew_at = 0.0
    for stream in desk.discovery.streams.values():
        shipper._schedule.attend(stream, POLL_INTERVAL)
    assert shipper._poll_delay() == pytest.approx(DRAIN_POLL_INTERVAL, abs=0.005)
    desk.close()


def test_metrics_and_health_show_progress(tmp_path: Path) -> None:
    """Metrics and the health event contain the lag and the numbers of shipped and redacted items."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one password=hunter2\ntwo\n")
    desk.ship()
    desk.write("app.log", "three\n")
    shipper = Shipper(desk.discovery, PrintingSink(), FileWatcher([]), 1_000, print)
    (file_stream,) = shipper.streams
    file_stream.caught_up_at = time.monotonic() - 100
    shipper.shipped["info"] = 2
    registry = CollectorRegistry()
    registry.register(ShipCollector(shipper, desk.counts))
    text = generate_latest(registry).decode()
    for line in (
        'tickertape_ship_events_total{level="info"} 2.0',
        'tickertape_ship_redacted_total{kind="password"} 1.0',
        "tickertape_ship_lines_total 2.0",
        "tickertape_ship_lag_bytes 6.0",
        "tickertape_ship_files 1.0",
    ):
        assert line in text
    assert "hunter2" not in text
    with changing(shipper.shipped, desk.counts.redacted):
        assert len(list(ShipCollector(shipper, desk.counts).collect())) > 10
    event = health_event(shipper, desk.counts, "host")
    assert event.subject == "system.health.shipper.host"
    assert event.status == "DEGRADED", "the lag is a hundred seconds"
    assert isinstance(event.checks, dict)
    assert event.checks["by_file"][0]["lag_bytes"] == 6
    desk.close()


class SlowSink:
    """Sink that acknowledges each batch after a while.

    Attributes:
        messages: shipped events in order.
    """

    def __init__(self) -> None:
        self.messages: list[str] = []

    async def load(self) -> dict[str, StoredCheckpoint]:
        """Return no checkpoints."""
        return {}

    async def commit(self, events: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Store a batch."""
        await asyncio.sleep(0.02)
        self.messages += [orjson.loads(event.payload)["message"] for event in events]
        return expected + 1


@pytest.mark.parametrize("failing", [1, 2, 3])
def test_a_read_error_does_not_discard_the_batch_in_flight(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that is being committed while the next one cannot be read is acknowledged, not cancelled."""
    monkeypatch.setattr("tickertape.producers.shipper.files.file_stream.READ_RETRY_WAIT", 0.0)
    next_batch, calls = FileStream.next_batch, itertools.count(1)

    def fail_once(file_stream: FileStream, now: float, *, finish: bool = False) -> Batch | None:
        if next(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return next_batch(file_stream, now, finish=finish)

    monkeypatch.setattr(FileStream, "next_batch", fail_once)
    desk = Desk(tmp_path)
    lines = [f"line {number:04}" for number in range(2_500)]
    desk.write("app.log", "".join(f"{text}\n" for text in lines))
    sink, reports = SlowSink(), list[str]()
    shipper = Shipper(desk.discovery, sink, FileWatcher([]), 1 << 20, reports.append)

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await shipper.run(lambda: True, once=True)

    asyncio.run(main())
    assert sink.messages == lines
    assert [report.partition(": ")[2] for report in reports] == [
        "cannot be read: Input/output error; retrying"
    ]
    desk.close()


class FailingSink(SlowSink):
    """Sink that fails at its second batch, as one with a broken disk does."""

    commits = 0

    async def commit(self, events: Sequence[OutgoingEvent], checkpoint: Checkpoint, expected: int) -> int:
        """Store a batch, unless it is the second one."""
        self.commits += 1
        if self.commits == 2:
            raise RuntimeError("broken")
        return await super().commit(events, checkpoint, expected)


@pytest.mark.parametrize("size", [40, 2_500])
def test_nothing_is_shipped_after_a_batch_that_failed(size: int, tmp_path: Path) -> None:
    """A poll between the failure of a batch and the end of the shipper ships no later batch of the file,
    whose checkpoint would cover the lines of the one that failed.
    """
    desk, sink = Desk(tmp_path), FailingSink()
    shipper = Shipper(desk.discovery, sink, FileWatcher([]), 1 << 20, print)
    written: list[str] = []

    def write() -> None:
        lines = [f"line {number:04}" for number in range(len(written), len(written) + size)]
        written.extend(lines)
        desk.write("app.log", "".join(f"{text}\n" for text in lines))

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), Tasks() as tasks:
            for _ in range(4):
                write()
                desk.discovery.scan(desk.now)
                shipper._poll(tasks, desk.now)
                while tasks:
                    await asyncio.sleep(0)

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(main())
    desk.close()
    assert sink.commits == 2
    assert sink.messages
    assert sink.messages == written[: len(sink.messages)]


def ship_once(desk: Desk, sink: SlowSink) -> list[str]:
    """Ship everything that a desk's folder contains; return the reports."""
    reports: list[str] = []
    desk.real_time = True
    shipper = Shipper(desk.discovery, sink, FileWatcher([]), 1 << 20, reports.append)

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            await shipper.run(lambda: True, once=True)

    try:
        asyncio.run(main())
    finally:
        desk.close()
    return reports


def fail_reads(monkeypatch: pytest.MonkeyPatch, path: Path, times: int = 1 << 30) -> None:
    """Make the first reads of a file fail."""
    calls, read = itertools.count(1), TailedFile.read

    def failing(file: TailedFile, now: float) -> list[ParsedEvent]:
        if file.path == str(path) and next(calls) <= times:
            raise OSError(errno.EIO, "Input/output error")
        return read(file, now)

    monkeypatch.setattr(TailedFile, "read", failing)
    monkeypatch.setattr("tickertape.producers.shipper.files.file_stream.READ_RETRY_WAIT", 0.05)


def test_what_cannot_be_read_is_an_error_at_the_end_of_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that stays unreadable ends the shipper with an error after the other files are shipped."""
    desk, sink = Desk(tmp_path), SlowSink()
    desk.write("good.log", "good\n")
    desk.write("bad.log", "bad\n")
    fail_reads(monkeypatch, tmp_path / "bad.log")
    with pytest.raises(ShipError, match=r"bad\.log cannot be read: Input/output error") as failed:
        ship_once(desk, sink)
    assert "run the same command again" in failed.value.hint
    assert sink.messages == ["good"]


def test_a_read_that_succeeds_in_time_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the input waits for a file that cannot be read for a moment."""
    desk, sink = Desk(tmp_path), SlowSink()
    desk.write("app.log", "one\ntwo\n")
    fail_reads(monkeypatch, tmp_path / "app.log", times=2)
    assert ship_once(desk, sink) == [f"{tmp_path}/app.log: cannot be read: Input/output error; retrying"]
    assert sink.messages == ["one", "two"]


@pytest.mark.parametrize(("times", "ends"), [(1, True), (2, True), (1 << 30, False)])
@pytest.mark.parametrize("call", ["scandir", "stat", "open"])
def test_a_failed_scan_does_not_end_the_shipper(
    call: str, times: int, ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that cannot be found for a moment are shipped before the end; if it lasts, that is an error."""
    monkeypatch.setattr("tickertape.producers.shipper.shipper.SCAN_INTERVAL", 0.05)
    desk, sink = Desk(tmp_path), SlowSink()
    desk.write("app.log", "one\n")
    real, calls = getattr(os, call), itertools.count(1)

    def failing(path: Any, *arguments: Any, **options: Any) -> Any:
        if (str(path).startswith(str(tmp_path)) or path == "app.log") and next(calls) <= times:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, failing)
    if ends:
        ship_once(desk, sink)
        assert sink.messages == ["one"]
    else:
        with pytest.raises(ShipError, match="cannot be read: Too many open files"):
            ship_once(desk, sink)
    assert len(desk.complaints) == 1
    assert desk.complaints[0].endswith("cannot be read: Too many open files; retrying")


def test_files_without_a_descriptor_are_not_reported_as_shipped(tmp_path: Path) -> None:
    """A shipper that cannot tail all files ships what it can, and ends with an error."""
    desk, sink = Desk(tmp_path), SlowSink()
    for name in ("a", "b", "c"):
        desk.write(f"{name}.log", f"{name}\n")
    desk.discovery._max_open = 2
    with pytest.raises(ShipError, match=r"c\.log cannot be read: Too many open files"):
        ship_once(desk, sink)
    assert sorted(sink.messages) == ["a", "b"]
    assert any("more than 2 files to tail" in text for text in desk.complaints)


def test_a_set_clock_is_no_lag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with a new line is not an hour behind because the system clock was set by an hour."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one\n")
    desk.ship()
    (file_stream,) = desk.discovery.streams.values()
    assert not file_stream.has_work(time.time())
    desk.write("app.log", "two\n")
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)
    shipper = Shipper(desk.discovery, PrintingSink(), FileWatcher([]), 1_000, print)
    assert health_event(shipper, desk.counts, "host").status == "HEALTHY"
    desk.close()


def test_a_stream_that_backs_off_is_not_caught_up(tmp_path: Path) -> None:
    """While a file cannot be read, its lag grows: it has no work, but is not caught up either."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one\n")
    desk.ship()
    (file_stream,) = desk.discovery.streams.values()
    assert not file_stream.has_work(desk.now)
    caught_up_at = file_stream.caught_up_at
    desk.write("app.log", "two\n")
    file_stream.back_off()
    desk.now += 1
    assert not file_stream.has_work(desk.now)
    assert file_stream.is_backing_off
    assert file_stream.caught_up_at == caught_up_at
    desk.now += 60
    assert file_stream.has_work(desk.now)
    desk.close()


def test_a_generation_is_stored_before_its_first_event(tmp_path: Path) -> None:
    """Where message ids contain the generation, an earlier batch has stored that of every event, even if the
    file was truncated while the batch was read.
    """
    desk = Desk(tmp_path)
    counts = ParserCounts()
    path = str(tmp_path / "app.log")
    file_stream = FileStream(
        path,
        None,
        lambda: Parser(PLAIN, "app", counts),
        Throttle(ThrottleSettings(), path, "app"),
        "run",
        roots=Roots([path]),
        announce_generations=True,
    )
    stored: set[str] = set()
    messages: list[str] = []

    def ship() -> None:
        while (batch := file_stream.next_batch(desk.now)) is not None:
            assert {event.id.split("-")[0] for event in batch.events} <= stored
            stored.update(position.generation for position in batch.checkpoint.positions)
            messages.extend(orjson.loads(event.payload)["message"] for event in batch.events)
            file_stream.mark_shipped(batch, 1)

    desk.write("app.log", "one\ntwo\n")
    file_stream.open(path, os.stat(path), desk.now)
    ship()
    desk.write("app.log", "three\n")
    desk.copy_and_truncate("app.log", "app.log.1")
    desk.write("app.log", "four\n")
    ship()
    ship()
    assert messages == ["one", "two", "three", "four"]
    file_stream.close()
    desk.close()


def test_a_spool_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the spool's folder is no sign that everything is shipped, and the spool counts as full."""
    spool = Spool(tmp_path / "spool", stream("stdin-test", tmp_path / "spool"), limit=10_000)
    scandir = os.scandir

    def failing(path: Any) -> Any:
        if str(path).startswith(str(tmp_path)):
            raise OSError(errno.EMFILE, "Too many open files")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="Too many open files"):
        spool.scan(time.time())
    assert spool._is_full()
    monkeypatch.undo()
    spool.scan(time.time())
    assert not spool._is_full()
    spool.close()


def test_planted_segments_are_neither_read_nor_written(tmp_path: Path) -> None:
    """Links and pipes in the spool are not shipped, and a segment is not written through them."""
    victim = tmp_path / "victim"
    victim.write_text("the secret of another folder\n")
    folder = tmp_path / "spool"
    folder.mkdir()
    (folder / "00000001.spool").symlink_to(victim)
    os.mkfifo(folder / "00000002.spool")
    (folder / "zzz.spool").write_text("no number\n")
    file_stream = stream("stdin-test", folder)
    spool = Spool(folder, file_stream, limit=10_000)

    def chunks() -> Iterator[bytes]:
        yield b"line 1\n"

    asyncio.run(spool.fill(Chunks(chunks())))
    spool.scan(time.time())
    batch = file_stream.next_batch(time.time(), finish=True)
    assert batch is not None
    assert [orjson.loads(event.payload)["message"] for event in batch.events] == ["line 1"]
    assert victim.read_text() == "the secret of another folder\n"
    spool.close()


def test_a_spool_in_a_planted_folder_is_an_error(tmp_path: Path) -> None:
    """Standard input is not spooled to a folder that another user chose."""
    (tmp_path / "other").mkdir()
    (tmp_path / "spool").symlink_to(tmp_path / "other")
    with pytest.raises(SpoolError, match="is a symbolic link"):
        Spool(tmp_path / "spool", stream("stdin-test", tmp_path / "spool"), limit=10_000)


def test_roots_are_an_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``--root`` names the folders to which links may lead; without it, a line says what is not read."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "pods").mkdir()
    (tmp_path / "pods" / "0.log").write_text("from a pod\n")
    (tmp_path / "logs" / "app.log").symlink_to(tmp_path / "pods" / "0.log")
    for roots in ([], [str(tmp_path / "pods")]):
        settings = ShipSettings(paths=[f"{tmp_path}/logs/*.log"], root=roots, once=True, dry_run=True)
        assert asyncio.run(run_shipper(settings, PrintingSink(), None, asyncio.Event(), 1 << 20)) == 0
        printed = capsys.readouterr()
        assert ("from a pod" in printed.out) == bool(roots)
        assert (f"--root {tmp_path}/pods" in printed.err) == (not roots)


def test_metrics_and_status_count_forbidden_files(tmp_path: Path) -> None:
    """Files that must not be read are counted in the metrics and the health event."""
    desk = Desk(tmp_path)
    (tmp_path / "app.log").symlink_to("/proc/self/environ")
    desk.ship()
    shipper = Shipper(desk.discovery, PrintingSink(), FileWatcher([]), 1_000, print)
    registry = CollectorRegistry()
    registry.register(ShipCollector(shipper, desk.counts))
    assert "tickertape_ship_forbidden_files 1.0" in generate_latest(registry).decode()
    event = health_event(shipper, desk.counts, "host")
    assert isinstance(event.checks, dict)
    assert event.checks["forbidden_files"] == 1
    desk.close()


def test_metrics_and_status_count_lost_lines(tmp_path: Path) -> None:
    """Lines that were truncated unread are counted, and the shipper is no longer healthy."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one\n")
    desk.ship()
    desk.write("app.log", "two\nthree\n")
    desk.discovery.scan(desk.now)
    desk.truncate("app.log")
    desk.settle()
    shipper = Shipper(desk.discovery, PrintingSink(), FileWatcher([]), 1_000, print)
    registry = CollectorRegistry()
    registry.register(ShipCollector(shipper, desk.counts))
    metrics = generate_latest(registry).decode()
    assert "tickertape_ship_lost_files_total 1.0" in metrics
    assert "tickertape_ship_lost_bytes_total 10.0" in metrics
    event = health_event(shipper, desk.counts, "host")
    assert event.status is Status.DEGRADED
    output = io.StringIO()
    payload = orjson.dumps(event.model_dump(mode="json", exclude_none=True))
    print_health("host", "system.health.shipper.host", payload, Terminal(file=output, width=200))
    assert "1 files with lost lines (10 B or more lost)" in output.getvalue()
    desk.close()
