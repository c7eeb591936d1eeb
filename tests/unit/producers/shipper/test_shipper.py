"""The shipper's smaller parts: the spool's bound, names that change under one's hands, patience, metrics."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.file_watcher import FileWatcher
from tickertape.producers.shipper.files.rotation import PathChanged, key_of, open_same, siblings
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.runner import DryRunSink
from tickertape.producers.shipper.shipper import DRAIN_POLL_INTERVAL, POLL_INTERVAL, Shipper
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent
from tickertape.producers.shipper.status import ShipCollector, health_event
from tickertape.producers.shipper.stdin_spool import StdinSpool
from tickertape.producers.shipper.throttle import Throttle, ThrottleSettings

from tests.support.patience import PATIENCE
from tests.support.shipper_desk import PLAIN, Desk


def stream(name: str, settings: ParseSettings = PLAIN) -> FileStream:
    counts = ParserCounts()
    parser = lambda: Parser(settings, "test", counts)  # noqa: E731
    return FileStream(name, None, parser, Throttle(ThrottleSettings(), name, "test"), "run", grace=0.0)


def test_a_full_spool_takes_no_more_until_it_is_shipped(tmp_path: Path) -> None:
    """Whoever writes into the pipe waits meanwhile, and nothing is lost of it."""
    of_spool = stream("stdin-test")
    spool = StdinSpool(tmp_path / "spool", of_spool, limit=10_000)
    given: list[int] = []

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            given.append(number)
            yield (f"line {number} " + "x" * 990).encode() + b"\n"

    async def main() -> list[str]:
        filling = asyncio.create_task(spool.fill(pieces()))
        await asyncio.sleep(0.2)
        assert len(given) <= 12, "it holds ten of a thousand bytes"
        shipped: list[str] = []
        now = time.time()
        async with asyncio.timeout(PATIENCE):
            while not (filling.done() and not of_spool.chain):
                now += 0.1
                spool.scan(now)
                while (batch := of_spool.next_batch(now, finish=True)) is not None:
                    shipped += [item.payload.decode() for item in batch.events]
                    of_spool.mark_shipped(batch, 1)
                await asyncio.sleep(0.001)
        spool.scan(now + 1)
        spool.close()
        return shipped

    shipped = asyncio.run(main())
    assert [f"line {number} " in text for number, text in enumerate(shipped)] == [True] * 100
    assert not (tmp_path / "spool").exists()


def test_a_path_that_leads_elsewhere_by_now_is_told(tmp_path: Path) -> None:
    """A rotation between looking and opening must not swap two files."""
    path = tmp_path / "app.log"
    path.write_text("old")
    ((_, found),) = siblings(str(path))
    path.rename(tmp_path / "app.log.1")
    with pytest.raises(PathChanged):
        open_same(str(path), key_of(found))
    path.write_text("new")
    with pytest.raises(PathChanged):
        open_same(str(path), key_of(found))


def test_patience_ends_when_something_is_due(tmp_path: Path) -> None:
    """What waits for its rest does not wait for the next poll as well."""
    desk = Desk(tmp_path, parsing=ParseSettings())
    shipper = Shipper(desk.discovery, DryRunSink(), FileWatcher([]), 1_000, print)
    assert shipper._poll_delay() == POLL_INTERVAL
    desk.now = time.time()
    desk.write("app.log", "INFO one\n")
    desk.ship()
    (file,) = next(iter(desk.discovery.streams.values())).chain
    assert file.flush_at < float("inf")
    desk.discovery.streams[str(tmp_path / "app.log")].chain[0]._grew_at -= 10
    assert shipper._poll_delay() == DRAIN_POLL_INTERVAL
    desk.close()


def test_metrics_and_health_say_how_it_stands(tmp_path: Path) -> None:
    """Counters of what was shipped and kept back, and the lag."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one password=hunter2\ntwo\n")
    desk.ship()
    desk.write("app.log", "three\n")
    shipper = Shipper(desk.discovery, DryRunSink(), FileWatcher([]), 1_000, print)
    (one,) = shipper.streams
    one.caught_up_at = time.time() - 100
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
    event = health_event(shipper, desk.counts, "host")
    assert event.subject == "system.health.shipper.host"
    assert event.status == "DEGRADED", "a hundred seconds behind"
    assert isinstance(event.checks, dict)
    assert event.checks["by_file"][0]["lag_bytes"] == 6
    desk.close()


def test_a_dry_sink_shows_what_would_be_shipped(capsys: pytest.CaptureFixture[str]) -> None:
    """The subject, and the event behind it."""
    items = [OutgoingEvent("log.info.a", b'{"a": 1}', "1")]
    asyncio.run(DryRunSink().commit(items, Checkpoint("a"), 0))
    assert capsys.readouterr().out == 'log.info.a {"a": 1}\n'
