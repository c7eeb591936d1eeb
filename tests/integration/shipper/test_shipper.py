"""The log shipper with real files and a real server: rotation, restarts, outages, standard input."""

import asyncio
import contextlib
import gc
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout
from tickertape.contracts.events import Status, SystemHealth
from tickertape.producers.sdk.publisher import FOREVER, Publisher
from tickertape.producers.shipper.runner import run_shipper
from tickertape.producers.shipper.sinks.atomic import AtomicSink
from tickertape.producers.shipper.sinks.dedupe import DedupeSink
from tickertape.producers.shipper.sinks.local_state import LocalState
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent

from tests.support.clients.feed_client import jetstream, publish
from tests.support.clients.shipped import listening
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import expect_rejection
from tests.support.programs.stop_signal import stopped_at_end
from tests.support.servers.nats_server import NatsServer
from tickertape.cli.ship import ShipSettings, run
from tickertape.names import Names
from tickertape.nats import connection


@pytest.fixture
def nats_server(nats_server: NatsServer) -> Iterator[NatsServer]:
    """Run a server that is killed; collect the socket nats-py leaks in an interrupted reconnection."""
    yield nats_server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def settings_of(url: str, prefix: str, folder: Path, *paths: str, **more: Any) -> ShipSettings:
    names = [str(folder / path) for path in paths or ("app.log",)]
    return ShipSettings(nats_url=url, subject_prefix=prefix, paths=names, state_dir=folder / "state", **more)


def append(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last)]


def records(first: int, last: int, count: int = 250) -> list[str]:
    """Return lines of OpenTelemetry's file exporter, each with many records."""
    return [
        orjson.dumps(
            {
                "resourceLogs": [
                    {"scopeLogs": [{"logRecords": [{"body": {"stringValue": text}} for text in part]}]}
                    for part in (numbered(start, min(start + count, last)),)
                ]
            }
        ).decode()
        for start in range(first, last, count)
    ]


def test_a_rotation_and_a_restart_lose_and_repeat_nothing(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """Every line is stored exactly once and in order, despite rotations with and without a shipper."""
    log = tmp_path / "app.log"
    settings = settings_of(nats_url, nats_prefix, tmp_path)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            append(log, numbered(0, 500))
            async with stopped_at_end(run(settings)):
                await shipped.until(500)
                append(log, numbered(500, 900))
                log.rename(tmp_path / "app.log.1")
                append(log, numbered(900, 1000))
                await shipped.until(1000)
            append(log, numbered(1000, 1100))
            log.rename(tmp_path / "app.log.2")
            append(log, numbered(1100, 1200))
            async with stopped_at_end(run(settings)):
                await shipped.until(1200)
            async with stopped_at_end(run(settings)):
                append(log, numbered(1200, 1201))
                await shipped.until(1201)
            await shipped.read()
            assert shipped.messages == numbered(0, 1201)
            assert {event["source"] for event in shipped.events} == {"app"}

    asyncio.run(main())


@pytest.mark.parametrize("lines", [numbered, records])
def test_a_crash_repeats_nothing(
    nats_url: str, nats_prefix: str, tmp_path: Path, lines: Callable[[int, int], list[str]]
) -> None:
    """A killed shipper resumes from its last checkpoint, and lines sent after it are not stored twice."""
    log = tmp_path / "app.log"
    append(log, lines(0, 3000))
    code = (
        "import asyncio, sys; from tickertape.cli.ship import ShipSettings, run; "
        "sys.exit(asyncio.run(run(ShipSettings.model_validate_json(sys.argv[1]))))"
    )
    settings = settings_of(nats_url, nats_prefix, tmp_path)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, settings.model_dump_json(), stderr=asyncio.subprocess.DEVNULL
            )
            try:
                await shipped.until(200)
            finally:
                process.kill()
                await process.wait()
            assert await run(settings.model_copy(update={"once": True})) == 0
            await shipped.until(3000)
            await shipped.read()
            assert sorted(shipped.messages) == sorted(numbered(0, 3000))

    asyncio.run(main())


def test_an_outage_of_nats_loses_nothing(nats_server: NatsServer, tmp_path: Path) -> None:
    """Lines written while NATS is unreachable arrive exactly once after the outage."""
    log = tmp_path / "app.log"

    async def main() -> None:
        async with listening(nats_server.url) as shipped:
            append(log, numbered(0, 100))
            async with stopped_at_end(run(settings_of(nats_server.url, "", tmp_path))):
                await shipped.until(100)
                await asyncio.to_thread(nats_server.kill)
                append(log, numbered(100, 6000))
                await asyncio.sleep(0.5)
                await asyncio.to_thread(nats_server.start)
                await shipped.until(6000)
            await shipped.read()
            assert shipped.messages == numbered(0, 6000)

    asyncio.run(main())


def test_once_ships_existing_lines_and_ends(
    nats_url: str, nats_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--once`` ships all matching files and ends; a second run finds nothing new."""
    append(tmp_path / "a.log", ["plain", '{"level":"error","msg":"json","logger":"db","n":1}', "", "DEBUG x"])
    (tmp_path / "b.log").write_bytes(b"WARN \x1b[31mred\xff")
    settings = settings_of(nats_url, nats_prefix, tmp_path, "*.log", once=True, level="info")

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(3)
            found = sorted((event["level"], event["source"], event["message"]) for event in shipped.events)
            assert found == [("ERROR", "db", "json"), ("INFO", "a", "plain"), ("WARN", "b", "WARN red\ufffd")]
            assert await run(settings) == 0
            await shipped.read()
            assert len(shipped.events) == 3

    asyncio.run(main())
    summaries = [line for line in capsys.readouterr().err.splitlines() if "shipped" in line]
    assert summaries == [
        "tickertape ship: events shipped: 3, of 5 lines, below the minimum level: 1",
        "tickertape ship: events shipped: 0, of 0 lines",
    ]


def test_standard_input_is_shipped_to_its_end(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines from a pipe are shipped with the given source, including a last line without a line break."""
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\nthree")
    os.close(writing)
    settings = ShipSettings(
        nats_url=nats_url, subject_prefix=nats_prefix, paths=["-"], source="piped", state_dir=tmp_path
    )

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(3)
            assert shipped.messages == ["one", "two", "three"]
            assert {event["source"] for event in shipped.events} == {"piped"}

    with os.fdopen(reading) as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        asyncio.run(main())


def test_it_stops_while_it_waits_for_nats(nats_server: NatsServer, tmp_path: Path) -> None:
    """SIGTERM ends a shipper that never reached NATS, and its state is unchanged."""
    nats_server.stop()
    append(tmp_path / "app.log", ["one"])

    async def main() -> None:
        async with stopped_at_end(run(settings_of(nats_server.url, "", tmp_path))):
            await asyncio.sleep(0.3)
        await asyncio.to_thread(nats_server.start)
        async with listening(nats_server.url) as shipped:
            assert await run(settings_of(nats_server.url, "", tmp_path, once=True)) == 0
            await shipped.until(1)
            assert shipped.messages == ["one"]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("-", "a.log"), "'-' cannot be combined"),
        ((), "no files given"),
        (("a.log", "--from-start", "--from-end"), "mutually exclusive"),
        (("a.log", "--rate", "INFO=x"), "INFO=x: a rate is a level and a number"),
        (("a.log", "--rate", "LOUD=1"), "'LOUD' is not a level"),
        (("a.log", "--multiline", "("), "start pattern"),
        (("a.log", "--redact", "badge"), "'badge' is not of the form NAME=VALUE"),
        (("a.log", "--redact", "badge=("), "badge"),
        (("a.log", "--format", "xml"), "'xml' is not a format; use one of auto, json"),
        (("a.log", "--zone", "Mars/Base"), "'Mars/Base' is not a time zone"),
        (("a.log", "--field", "colour=c"), "unknown field; use one of level, message, timestamp, source"),
    ],
)
def test_a_usage_error_is_one_line(options: tuple[str, ...], expected: str) -> None:
    """A usage error prints one clear message and ends with exit code 2."""
    done = expect_rejection("ship", *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def ship_command(*options: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "tickertape", "ship", *options]
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_a_dry_run_prints_events_and_stores_nothing(tmp_path: Path) -> None:
    """A dry run reports or prints redacted events, needs no NATS, and stores no state."""
    append(tmp_path / "app.log", ["ERROR no route", "login password=hunter2 failed"])
    options = [str(tmp_path / "*.log"), "--dry-run", "--once", "--state-dir", str(tmp_path / "state")]
    done = ship_command(*options, "--json")
    assert done.returncode == 0, done.stderr
    printed = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["subject"] for each in printed] == ["log.error.app", "log.info.app"]
    assert printed[0]["event"]["message"] == "ERROR no route"
    for output in (done.stdout, ship_command(*options).stdout):
        assert "hunter2" not in output
        assert "[redacted:password]" in output
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("missing.log", "missing.log: does not exist"),
        ("folder", "folder: is a folder"),
        ("pipe", "pipe: is a device, pipe or socket"),
        ("/dev/null", "/dev/null: is a device, pipe or socket"),
        ("dangling.log", "which does not exist"),
        ("old.log.1.gz", "old.log.1.gz: is compressed"),
        ("app.log/app.log", "does not exist"),
    ],
)
def test_a_path_that_cannot_be_shipped_is_an_error(tmp_path: Path, name: str, expected: str) -> None:
    """With ``--once`` nothing is shipped if one of the paths is not that of a file that can be read."""
    append(tmp_path / "app.log", ["INFO one"])
    append(tmp_path / "old.log.1.gz", ["not read"])
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling.log").symlink_to(tmp_path / "missing.log")
    done = ship_command(str(tmp_path / "app.log"), str(tmp_path / name), "--dry-run", "--once", "--json")
    assert (done.returncode, done.stdout) == (2, "")
    assert expected in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("pattern", ["*.txt", "folder/*", "*.gz", "fold*"])
def test_a_glob_without_a_file_is_a_warning(tmp_path: Path, pattern: str) -> None:
    """A glob matches what there is, which may be nothing; folders and compressed files are no files to it."""
    append(tmp_path / "app.log", ["INFO one"])
    append(tmp_path / "old.log.1.gz", ["not read"])
    (tmp_path / "folder").mkdir()
    done = ship_command(str(tmp_path / "*.log"), str(tmp_path / pattern), "--dry-run", "--once", "--json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    assert f"no file matches {tmp_path / pattern}\n" in done.stderr


@pytest.mark.parametrize("pattern", ["*.log", "secret.log"])
def test_a_file_without_permission_is_an_error(tmp_path: Path, pattern: str) -> None:
    """The others that a glob matches are shipped, and the exit code says that something is missing."""
    append(tmp_path / "app.log", ["INFO one"])
    append(tmp_path / "secret.log", ["INFO two"])
    (tmp_path / "secret.log").chmod(0)
    # Root reads everything, unless these capabilities are taken from it.
    capabilities = "-dac_override,-dac_read_search"
    unprivileged = ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"]
    argv = [sys.executable, "-m", "tickertape", "ship", str(tmp_path / pattern), "--dry-run", "--once"]
    argv += ["--json"]
    argv = unprivileged + argv if os.geteuid() == 0 else argv
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert "secret.log: cannot be" in done.stderr
    assert "Permission denied" in done.stderr
    shipped = 1 if "*" in pattern else 0
    assert (done.returncode, len(done.stdout.splitlines())) == (1 if shipped else 2, shipped)


def test_standard_input_survives_a_kill(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Lines read from a pipe are spooled on disk; if the shipper is killed, the next one ships them."""
    nats = ("--nats-url", nats_url, "--subject-prefix", nats_prefix, "--state-dir", str(tmp_path))
    argv = [sys.executable, "-m", "tickertape", "ship", "-", *nats]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as first:
        assert first.stdin is not None
        assert first.stderr is not None
        first.stdin.write("".join(f"{line}\n" for line in numbered(0, 8_000)).encode())
        first.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while not any(path.stat().st_size for path in tmp_path.glob("stdin-*/*.spool")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.kill()
    kept = sum(path.read_bytes().count(b"\n") for path in tmp_path.glob("stdin-*/*.spool"))
    done = ship_command("-", *nats, stdin="last\n")
    assert done.returncode == 0, done.stderr

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            await shipped.read()
            *before, last = shipped.messages
            assert last == "last"
            assert len(before) >= kept
            assert before[:kept] == numbered(0, kept)
            # The kill may have split a line, in which case only its first part exists.
            assert "".join(before[kept:]) in ("", f"line {kept}"[: len("".join(before[kept:]))])

    asyncio.run(main())
    assert not list(tmp_path.glob("stdin-*/*.spool"))


@contextlib.contextmanager
def running_shipper(argv: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a shipper and kill it at the end of the test."""
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_shippers_of_one_host_name_and_file_repeat_nothing(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """A second shipper of the same host and file repeats no line, and one of the two ends with an error."""
    log = tmp_path / "app.log"
    append(log, numbered(0, 10))
    nats = ("--nats-url", nats_url, "--subject-prefix", nats_prefix, "--host", "twin")
    argv = [sys.executable, "-m", "tickertape", "ship", str(log), *nats, "--state-dir"]

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            with (
                running_shipper([*argv, str(tmp_path / "a")]) as first_shipper,
                running_shipper([*argv, str(tmp_path / "b")]) as second_shipper,
            ):
                number = 10
                async with asyncio.timeout(PATIENCE):
                    while first_shipper.poll() is None and second_shipper.poll() is None:
                        append(log, numbered(number, number + 10))
                        number += 10
                        await asyncio.sleep(0.05)
                await shipped.until(number)
                ended = first_shipper if first_shipper.poll() is not None else second_shipper
                assert ended.wait() == 1
                assert ended.stderr is not None
                assert "another shipper" in (output := ended.stderr.read())
                assert "--host" in output
            await shipped.read()
            assert shipped.messages == numbered(0, number)

    asyncio.run(main())


def test_rate_level_and_zone(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Suppressed lines are counted in an event, and times without a zone are in the given zone."""
    append(tmp_path / "app.log", [f"2026-07-01 12:00:00 INFO line {number}" for number in range(50)])
    append(tmp_path / "quiet.log", ["DEBUG a", "WARN b"])
    settings = settings_of(
        nats_url, nats_prefix, tmp_path, "*.log", once=True, rate=["info=20"], zone="Asia/Shanghai",
        level_of=["quiet=WARN"],
    )  # fmt: skip

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(22)
            await shipped.read()
            assert [event["message"] for event in shipped.events if event["source"] == "quiet"] == ["WARN b"]
            *lines, summary = (event for event in shipped.events if event["source"] == "app")
            assert len(lines) == 20
            assert {event["timestamp"] for event in lines} == {"2026-07-01T04:00:00.000Z"}
            assert summary["metadata"]["suppressed"] == 30

    asyncio.run(main())


def test_health_and_status_report_the_lag(
    nats_url: str, nats_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The health event and ``--status`` report the lag of each file in bytes and seconds."""
    append(tmp_path / "app.log", numbered(0, 10))
    settings = settings_of(nats_url, nats_prefix, tmp_path, host="desk-1", health_interval=0.2)

    status_settings = ShipSettings(
        nats_url=nats_url, subject_prefix=nats_prefix, host="desk-1", status=True, state_dir=tmp_path
    )
    printed: list[str] = []

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            async with stopped_at_end(run(settings)):
                await shipped.until(10)
                async with asyncio.timeout(PATIENCE):
                    while "10 events shipped" not in "".join(printed[-1:]):
                        await asyncio.sleep(0.1)
                        await run(status_settings)
                        printed.append(capsys.readouterr().out)
            other_host = status_settings.model_copy(update={"host": "absent"})
            assert await run(other_host) == 1
            async with jetstream(nats_url) as js:
                invalid = SystemHealth(
                    component="shipper",
                    instance="other",
                    status=Status.HEALTHY,
                    checks={"by_file": [{"path": 7}]},
                )
                await publish(js, invalid, f"{nats_prefix}.")
            other_host = status_settings.model_copy(update={"host": "other"})
            async with asyncio.timeout(PATIENCE):
                while True:
                    assert await run(other_host) == 1
                    printed.append(capsys.readouterr().err)
                    if "is not one of a shipper: by_file.0.path" in printed[-1]:
                        break
                    await asyncio.sleep(0.1)

    asyncio.run(main())
    table = next(text for text in printed if "10 events shipped" in text)
    assert "HEALTHY" in table
    assert re.search(rf"\b0 B +[0-9.]+ s +utf-8 +{tmp_path / 'app.log'}", table), table
    assert any("no status of a shipper on host 'absent'" in text for text in printed)


@pytest.mark.parametrize("lines", [numbered, records])
def test_without_atomic_batches_message_ids_prevent_duplicates(
    nats_url: str, nats_prefix: str, tmp_path: Path, lines: Callable[[int, int], list[str]]
) -> None:
    """Before NATS 2.12, a shipper killed before its checkpoint is saved resends the same message IDs."""
    log = tmp_path / "app.log"
    append(log, lines(0, 2_500))
    settings = settings_of(nats_url, nats_prefix, tmp_path, once=True)

    class FailingState(LocalState):
        saves = 0

        def record(self, checkpoints: dict[str, bytes], path: str) -> None:
            self.saves += 1
            if self.saves == 3:
                raise RuntimeError("killed")
            super().record(checkpoints, path)

    async def ship(state: LocalState) -> int:
        publisher = Publisher(nats_url, prefix=nats_prefix, name="old", deadline=FOREVER)
        async with publisher:
            await publisher.connected()
            sink = DedupeSink(publisher, state, "host", print)
            return await run_shipper(settings, sink, publisher, asyncio.Event(), 200_000, state)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            state: LocalState = FailingState(tmp_path / "state", "key")
            with pytest.raises(RuntimeError, match="killed"):
                await ship(state)
            state.close()
            state = LocalState(tmp_path / "state", "key")
            assert await ship(state) == 0
            state.close()
            await shipped.read()
            assert shipped.messages == numbered(0, 2_500)

    asyncio.run(main())


def test_an_event_that_nats_rejects_does_not_block_others(
    nats_url: str, nats_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An event that NATS rejects is dropped and reported, and the events around it are shipped."""
    append(tmp_path / "app.log", ["before", "x" * 3_000, "after"])
    settings = settings_of(nats_url, nats_prefix, tmp_path, once=True)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            client = await connection.connect(nats_url, name="small")
            sink = AtomicSink(client, Names(nats_prefix), "host", print)
            assert await run_shipper(settings, sink, None, asyncio.Event(), 2_000) == 0
            await connection.close(client)
            await shipped.read()
            assert shipped.messages == ["before", "after"]

    asyncio.run(main())
    assert "event dropped" in capsys.readouterr().err


def test_a_batch_whose_acknowledgement_is_lost_is_stored_once(nats_url: str, nats_prefix: str) -> None:
    """A batch whose acknowledgement was lost is looked up by its ID before it is sent again."""

    class LossySink(AtomicSink):
        replied = 0

        async def _request(self, subject: str, body: bytes, *rest: Any) -> Msg:
            reply = await super()._request(subject, body, *rest)
            self.replied += 1
            if self.replied % 2:
                raise NatsTimeout
            return reply

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            client = await connection.connect(nats_url, name="lossy")
            sink = LossySink(client, Names(nats_prefix), "host", print)
            sequence = 0
            for number in range(4):
                text = f'"timestamp":"2026-01-01T00:00:00Z","level":"INFO","message":"{number}","source":"a"'
                event = OutgoingEvent(
                    "log.info.a", f'{{"event_type":"system_log",{text}}}'.encode(), str(number)
                )
                sequence = await sink.commit([event], Checkpoint("/a", count=number + 1), sequence)
            await connection.close(client)
            await shipped.read()
            assert shipped.messages == ["0", "1", "2", "3"]

    asyncio.run(main())


def test_an_expired_checkpoint_is_read_from_its_copy(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """A checkpoint that has expired from EVENTS is read from its copy in CHECKPOINTS."""
    log = tmp_path / "app.log"
    append(log, numbered(0, 10))
    settings = settings_of(nats_url, nats_prefix, tmp_path, once=True)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(10)
            client = await connection.connect(nats_url, name="purge")
            names = Names(nats_prefix)
            kept = names.stream("CHECKPOINTS")
            async with asyncio.timeout(PATIENCE):
                while not (await client.jetstream().stream_info(kept)).state.messages:
                    await asyncio.sleep(0.05)
            await client.jetstream().purge_stream(names.stream("EVENTS"))
            await connection.close(client)
            append(log, numbered(10, 15))
            assert await run(settings) == 0
            await shipped.read()
            assert shipped.messages == numbered(0, 15)

    asyncio.run(main())
