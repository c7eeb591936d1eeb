"""Scenario ``files``: cost of the log shipper when the lines are spread over many files.

Each round appends a few lines to every file, and ends when all of them are in the stream, so that no file has
more than one append to be shipped. Also measured for the largest number of files: the time from a restart of
the shipper to the first new line in the stream, and CPU while no file changes.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import nats
import orjson
from nats.js.api import AckPolicy, ConsumerConfig

from tests.bench.load.children import BenchError, Child, running
from tests.bench.measures import targets

APPENDED: Final = 10
"""Lines of each append: 2 kB."""

LINE_BYTES: Final = 200

_IDLE_SECONDS: Final = 20.0
_SETTLE_SECONDS: Final = 5.0
_PATIENCE: Final = 300.0
_POLL: Final = 0.05

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ManyFiles:
    """Cost of shipping many files.

    Attributes:
        files: number of files.
        lines: number of lines shipped.
        seconds: seconds from the first append to the last line in the stream.
        cpu_us: microseconds of the shipper's CPU for each line.
        server_us: microseconds of the CPU of nats-server for each line.
        wrong: number of lines lost, repeated or out of order.
        restart: seconds from a restart of the shipper to the first new line in the stream.
        idle_cores: cores used while no file changes.
        rss: resident bytes of the shipper at the end.
    """

    files: int
    lines: int
    seconds: float
    cpu_us: float
    server_us: float
    wrong: int
    restart: float
    idle_cores: float
    rss: int


def many_files(files: int, lines: int, progress: Progress) -> ManyFiles:
    """Measure the shipper with lines that are spread over many files.

    Args:
        files: number of files.
        lines: number of lines, which is rounded up to whole rounds.
        progress: called with each line of progress.
    """
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as name:
        folder = Path(name)
        (folder / "logs").mkdir()
        logs = _Logs(folder / "logs", files)
        rounds = max(1, -(-lines // (files * APPENDED)))
        with targets.nats_server(jetstream=True) as (server, nats_port):
            targets.make_streams(nats_port)
            argv = _program(folder, nats_port)
            with running("the shipper", argv) as process, _Stored(nats_port) as stored:
                logs.append(1)
                stored.wait(process, files)
                time.sleep(_SETTLE_SECONDS)
                seconds, cpu, server_cpu = 0.0, process.cpu, server.cpu
                for _ in range(rounds):
                    began = time.monotonic()
                    logs.append(APPENDED)
                    stored.wait(process, logs.lines)
                    seconds += time.monotonic() - began
                lines = logs.lines - files
                cpu_us, server_us = (
                    (process.cpu - cpu) / lines * 1e6,
                    (server.cpu - server_cpu) / lines * 1e6,
                )
                progress(
                    f"files: {lines:,} lines over {files:,} files, {APPENDED} per append: {cpu_us:.1f} us of"
                    f" the shipper and {server_us:.1f} us of nats-server each, {lines / seconds:,.0f} lines/s"
                )
                time.sleep(_SETTLE_SECONDS)
                cpu, began = process.cpu, time.monotonic()
                time.sleep(_IDLE_SECONDS)
                idle_cores = (process.cpu - cpu) / (time.monotonic() - began)
                rss = process.rss
                progress(f"files: {files:,} idle files use {idle_cores:.2%} of a core, {rss / 1e6:.0f} MB")
            with _Stored(nats_port) as stored:
                logs.append_last()
                began = time.monotonic()
                with running("the shipper", argv) as process:
                    stored.wait(process, logs.lines)
                    restart = time.monotonic() - began
                    progress(
                        f"files: the first new line is stored {restart:.2f} s after a restart,"
                        f" with {process.cpu:.2f} s of CPU"
                    )
            wrong = asyncio.run(_check(nats_port, logs))
            if wrong:
                progress(f"files: {wrong} of {logs.lines:,} lines lost, repeated or out of order")
    return ManyFiles(files, lines, seconds, cpu_us, server_us, wrong, restart, idle_cores, rss)


class _Logs:
    """Files to which lines are appended.

    Args:
        folder: their folder.
        count: number of files.

    Attributes:
        lines: lines in all files.
        expected: number of lines of each file by name.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.lines = 0
        self.expected = {f"service{number:05}": 0 for number in range(count)}
        self._paths = {name: os.path.join(folder, f"{name}.log") for name in self.expected}

    def append(self, count: int) -> None:
        """Append lines to each file."""
        for name in self.expected:
            self._append(name, count)

    def append_last(self) -> None:
        """Append a line to the last file."""
        self._append(next(reversed(self.expected)), 1)

    def _append(self, name: str, count: int) -> None:
        first = self.expected[name]
        text = "".join(_line(number) for number in range(first, first + count))
        with open(self._paths[name], "a", encoding="utf-8") as file:
            file.write(text)
        self.expected[name] += count
        self.lines += count


def _line(number: int) -> str:
    clock = f"2026-01-01T{number // 3_600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}.000Z"
    return f"{clock} INFO order {number} filled at femas_options ".ljust(LINE_BYTES - 1, "x") + "\n"


def _program(folder: Path, nats_port: int) -> list[str]:
    return [
        sys.executable, "-m", "tickertape", "ship", str(folder / "logs" / "*.log"), "--host", "bench",
        "--nats-url", f"nats://127.0.0.1:{nats_port}", "--state-dir", str(folder / "state"),
    ]  # fmt: skip


class _Stored:
    """Number of log events in the stream, on a connection that stays open.

    Args:
        nats_port: port of NATS.
    """

    def __init__(self, nats_port: int) -> None:
        self._port = nats_port
        self._runner = asyncio.Runner()

    def __enter__(self) -> "_Stored":
        self._client = self._runner.run(nats.connect(f"nats://127.0.0.1:{self._port}"))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()

    def wait(self, process: Child, count: int) -> None:
        """Wait until the stream has ``count`` log events."""
        deadline = time.monotonic() + _PATIENCE
        while (found := self._runner.run(self._count())) < count:
            process.check()
            if time.monotonic() > deadline:
                raise BenchError(f"the shipper has stored {found:,} of {count:,} lines")
            time.sleep(_POLL)

    async def _count(self) -> int:
        info = await self._client.jetstream().stream_info("EVENTS", subjects_filter="log.>")
        return sum((info.state.subjects or {}).values())


async def _check(nats_port: int, logs: _Logs) -> int:
    """Return the number of lines that are lost, repeated or out of order."""
    client = await nats.connect(f"nats://127.0.0.1:{nats_port}")
    found = dict.fromkeys(logs.expected, 0)
    wrong = 0
    try:
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=_PATIENCE)
        consumer = await client.jetstream().pull_subscribe("log.>", stream="EVENTS", config=config)
        left = logs.lines
        while left > 0:
            messages = await consumer.fetch(min(left, 5_000), timeout=10)
            left -= len(messages)
            for message in messages:
                body = orjson.loads(message.data)
                wrong += f" {found[body['source']]} " not in body["message"]
                found[body["source"]] += 1
    finally:
        await client.close()
    return wrong + sum(found[name] != count for name, count in logs.expected.items())
