"""Scenario ``ship``: throughput and cost of the log shipper.

A file of 200-byte lines is shipped exactly once to a real server. Also measured: reading and parsing alone,
for plain, JSON, logfmt and market depth lines, access logs, syslog and the lines of containers; memory while
NATS is unreachable and 10 GB are unread; CPU with 500 idle files.
"""

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
import orjson
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.files.tailed_file import TailedFile
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.throttle import Throttle, ThrottleSettings

from tests.bench.load.children import BenchError, Child, running
from tests.bench.measures import targets

LINE_BYTES: Final = 200
OTHER_FORMATS: Final = ("nested JSON", "nginx", "CRI", "Docker", "syslog")
TARGETS: Final = {
    "plain": 200_000, "json": 150_000, "logfmt": 120_000, "depth": 150_000,
    **dict.fromkeys(OTHER_FORMATS, 100_000),
}  # fmt: skip
"""Lines per core-second of each format."""

IDLE_FILES: Final = 500
UNREAD_BYTES: Final = 10 * 1000**3
PEERS_PUBLISHED: Final = "Vector 77 MiB/s, Filebeat 8 MiB/s"
"""From vector-test-harness, which ships from a file to a TCP socket without acknowledgements."""

_IDLE_SECONDS: Final = 15.0
_OUTAGE_SECONDS: Final = 8.0
_PATIENCE: Final = 180.0
_POLL: Final = 0.05

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Shipping:
    """Throughput and cost of shipping.

    Attributes:
        lines: number of lines shipped end to end.
        seconds: seconds from the first line in the stream to the last.
        cores: cores used by the shipper meanwhile.
        wrong: number of lines lost, repeated or out of order.
        parsed: lines per second on one core, without NATS, by format.
        outage_rss: resident bytes while NATS is unreachable and 10 GB are unread.
        idle_cores: cores used with ``IDLE_FILES`` files that do not change.
        syslog_rate: lines per second that are received by syslog over TCP and shipped.
        syslog_cores: cores used by the shipper meanwhile.
        syslog_wrong: number of them that are lost, repeated or out of order.
    """

    lines: int
    seconds: float
    cores: float
    wrong: int
    parsed: dict[str, float]
    outage_rss: int
    idle_cores: float
    syslog_rate: float
    syslog_cores: float
    syslog_wrong: int

    @property
    def per_core(self) -> float:
        """Lines per second of the shipper's CPU."""
        return self.lines / (self.seconds * self.cores)


def ship(lines: int, progress: Progress) -> Shipping:
    """Measure the shipper.

    Args:
        lines: number of lines to ship end to end.
        progress: called with each line of progress.
    """
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as name:
        folder = Path(name)
        parsed = {kind: _parse(folder, kind, lines // 2) for kind in TARGETS}
        rates = ", ".join(f"{rate:,.0f} {kind}" for kind, rate in parsed.items())
        progress(f"ship: read, parse and redact only: {rates} lines/s on one core")
        seconds, cores, wrong = _ship(folder, lines)
        progress(f"ship: {lines / seconds:,.0f} lines/s exactly once with {cores:.2f} cores, {wrong} wrong")
        progress(f"ship: peers, published in 2019, at least once, on other machines: {PEERS_PUBLISHED}")
        outage_rss = _outage(folder)
        progress(
            f"ship: {outage_rss / 1e6:.0f} MB while NATS is unreachable"
            f" and {UNREAD_BYTES / 1e9:.0f} GB are unread"
        )
        idle_cores = _idle(folder)
        progress(f"ship: {IDLE_FILES} idle files use {idle_cores:.2%} of a core")
        rate, receiving, unlike = _receive(folder, lines)
        progress(f"ship: {rate:,.0f} lines/s of syslog over TCP with {receiving:.2f} cores, {unlike} wrong")
    return Shipping(lines, seconds, cores, wrong, parsed, outage_rss, idle_cores, rate, receiving, unlike)


def _log_lines(kind: str, stop: int, first: int = 0) -> Iterator[str]:
    """Yield lines of 200 bytes, including line breaks."""
    for number in range(first, stop):
        start, end = _log_line(kind, number)
        yield start + "x" * (LINE_BYTES - 1 - len(start) - len(end)) + end + "\n"


def _log_line(kind: str, number: int) -> tuple[str, str]:
    """Return the start and the end of a line, between which it is filled."""
    second = f"00:00:{number // 1_000 % 60:02}"
    clock = f"2026-01-01T{second}.{number % 1_000:03}Z"
    plain = f"{clock} INFO order {number} filled at femas_options "
    match kind:
        case "plain":
            return plain, ""
        case "json":
            return f'{{"time": "{clock}", "level": "info", "msg": "filled", "n": {number}, "pad": "', '"}'
        case "nested JSON":
            legs = f'[{{"side": "buy", "quantity": {number % 100}}}, {{"side": "sell", "quantity": 2}}]'
            head = f'{{"time": "{clock}", "level": "info", "msg": "filled", "order": {{"legs": {legs}}}'
            return f'{head}, "pad": "', '"}'
        case "logfmt":
            return f"time={clock} level=info n={number} gateway=femas_options msg=", ""
        case "depth":
            price = 3_000 + number % 1_000
            levels = " ".join(f"{price - level} {number * (level + 7) % 997 + 1}" for level in range(8))
            return f"{clock} INFO depth {levels} ", ""
        case "nginx":
            request = (
                f'"GET /orders/{number}?limit=20 HTTP/1.1" {(200, 304, 404)[number % 3]} {number % 9_973}'
            )
            return f'10.1.{number % 251}.7 - - [01/Jan/2026:{second} +0000] {request} "-" "Mozilla/5.0 ', '"'
        case "CRI":
            return f"2026-01-01T{second}.{number % 10**9:09}Z stdout F {plain}", ""
        case "Docker":
            return f'{{"log":"{plain}', f'\\n","stream":"stdout","time":"{clock}"}}'
        case _:
            return f"Jan  1 {second} gateway-1 femas[{1_000 + number % 9}]: order {number} filled ", ""


def _write(path: Path, texts: Iterator[str]) -> None:
    with path.open("w") as file:
        file.writelines(texts)


def _parse(folder: Path, kind: str, count: int) -> float:
    """Return the lines per second that one core processes from file to payload, without NATS."""
    path = folder / f"{kind}.parse"
    _write(path, _log_lines(kind, count))
    throttle = Throttle(ThrottleSettings(), str(path), "bench")
    parser = Parser(ParseSettings(), "bench", ParserCounts())
    roots = Roots([str(path)])
    stream = FileStream(str(path), None, lambda: parser, throttle, "bench", roots=roots)
    stream.chain.append(TailedFile(str(path), roots.open(str(path)), parser, time.time()))
    began = time.process_time()
    found = 0
    while (batch := stream.next_batch(time.time(), finish=True)) is not None and batch.events:
        found += len(batch.events)
        stream.mark_shipped(batch, 1)
    elapsed = time.process_time() - began
    stream.close()
    path.unlink()
    if found != count:
        raise BenchError(f"parsed {found} events from {count} {kind} lines")
    return count / elapsed


def _program(folder: Path, pattern: str, nats_port: int, *options: str) -> list[str]:
    given = options or (str(folder / pattern),)
    return [
        sys.executable, "-m", "tickertape", "ship", *given, "--host", "bench",
        "--nats-url", f"nats://127.0.0.1:{nats_port}", "--state-dir", str(folder / "state"),
    ]  # fmt: skip


def _ship(folder: Path, lines: int) -> tuple[float, float, int]:
    """Ship a file; return seconds, cores used by the shipper, and number of wrong lines."""
    path = folder / "app.log"
    _write(path, _log_lines("plain", lines))
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        with running("the shipper", _program(folder, "app.log", nats_port)) as process:
            began, cpu, initial = _until(process, nats_port, 1)
            ended, cpu_after, _ = _until(process, nats_port, lines)
            seconds, cores = ended - began, (cpu_after - cpu) / (ended - began)
        wrong = asyncio.run(_check(nats_port, lines))
    path.unlink()
    share = (lines - initial) / lines  # lines stored before the first poll are not part of this window
    return seconds / share, cores, wrong


def _receive(folder: Path, lines: int) -> tuple[float, float, int]:
    """Send lines by syslog over TCP; return lines per second, cores of the shipper, and wrong lines."""
    with (
        targets.nats_server(jetstream=True) as (_, nats_port),
        socket.create_server(("127.0.0.1", 0)) as free,
    ):
        targets.make_streams(nats_port)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        argv = _program(folder, "", nats_port, f"--syslog=tcp://127.0.0.1:{port}")
        with running("the shipper", argv) as process:
            sender = _connect(process, port)
            cpu, began = process.cpu, time.monotonic()
            for start in range(0, lines, 1_000):
                block = (f"<14>{line}" for line in _log_lines("other", start + 1_000, start))
                sender.sendall("".join(block).encode())
            sender.close()
            ended, cpu_after, _ = _until(process, nats_port, lines)
        seconds = ended - began
        return lines / seconds, (cpu_after - cpu) / seconds, asyncio.run(_check(nats_port, lines))


def _connect(process: Child, port: int) -> socket.socket:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            process.check()
            time.sleep(_POLL)
    raise BenchError("the shipper does not listen")


def _until(process: Child, nats_port: int, count: int) -> tuple[float, float, int]:
    """Wait until ``count`` lines are in the stream; return the time, the shipper's CPU, and their number."""

    async def wait() -> int:
        client = await nats.connect(f"nats://127.0.0.1:{nats_port}")
        try:
            while True:
                info = await client.jetstream().stream_info("EVENTS", subjects_filter="log.>")
                stored = sum((info.state.subjects or {}).values())
                if stored >= count:
                    return stored
                process.check()
                await asyncio.sleep(_POLL)
        finally:
            await client.close()

    stored = asyncio.run(asyncio.wait_for(wait(), _PATIENCE))
    return time.monotonic(), process.cpu, stored


async def _check(nats_port: int, lines: int) -> int:
    client = await nats.connect(f"nats://127.0.0.1:{nats_port}")
    try:
        consumer = await client.jetstream().subscribe("log.>", stream="EVENTS", ordered_consumer=True)
        wrong = 0
        for number in range(lines):
            message = await consumer.next_msg(timeout=10)
            wrong += f" {number} " not in orjson.loads(message.data)["message"]
        return wrong
    finally:
        await client.close()


def _outage(folder: Path) -> int:
    """Return the resident bytes of a shipper that has lost its server."""
    path = folder / "huge.log"
    _write(path, _log_lines("plain", 100_000))
    os.truncate(path, UNREAD_BYTES)  # sparse: the rest reads as zeros and uses no disk space
    with targets.nats_server(jetstream=True) as (server, nats_port):
        targets.make_streams(nats_port)
        with running("the shipper", _program(folder, "huge.log", nats_port)) as process:
            _until(process, nats_port, 1)
            server.stop()
            time.sleep(_OUTAGE_SECONDS)
            process.check()
            rss = process.rss
    path.unlink()
    return rss


def _idle(folder: Path) -> float:
    """Return the cores used by a shipper with many files that do not change."""
    idle = folder / "many"
    idle.mkdir()
    for number in range(IDLE_FILES):
        (idle / f"{number}.log").write_text(f"2026-01-01T00:00:00Z INFO file {number}\n")
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        with running("the shipper", _program(folder, "many/*.log", nats_port)) as process:
            _until(process, nats_port, IDLE_FILES)
            time.sleep(3.0)
            cpu, began = process.cpu, time.monotonic()
            time.sleep(_IDLE_SECONDS)
            return (process.cpu - cpu) / (time.monotonic() - began)
