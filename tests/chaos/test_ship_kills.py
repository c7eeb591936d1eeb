"""Every line exactly once: shipper and NATS are killed at random while files rotate, each in its own way.

``CHAOS=full`` kills 200 times instead of 8; ``CHAOS_SEED`` repeats a run.
"""

import asyncio
import contextlib
import os
import random
import re
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Final

import nats
import orjson
from nats.js.api import AckPolicy, ConsumerConfig
from nats.js.errors import NotFoundError

from tests.chaos.rotated import Kind, Writer
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer

FULL: Final = os.environ.get("CHAOS") == "full"
KILLS: Final = 200 if FULL else 8
RATE: Final = 500.0
"""Lines per second of each file."""

LIMIT: Final = (256 if FULL else 85) * 1024
"""Size in bytes at which a file rotates, small enough for several rotations between two kills."""

KINDS: Final[dict[str, tuple[Kind, int]]] = {
    "file1": ("rename", 1),
    "file2": ("rename", 1),
    "file3": ("copy" if FULL else "rename", 1),
    "file4": ("compress", 1),
    "file5": ("link", 1),
    "file6": ("holes", 4),
}
"""How each file rotates, and the multiple of ``LIMIT`` at which it does."""

SETTLE: Final = 2 * PATIENCE
"""Seconds to ship the rest at the end; only a failing test takes this long."""


class Shipper:
    """``tickertape ship`` as a process that is killed and restarted."""

    def __init__(self, url: str, folder: Path) -> None:
        self._argv = [
            sys.executable, "-m", "tickertape", "ship", str(folder / "logs" / "*.log"),
            "--nats-url", url, "--state-dir", str(folder / "state"), "--host", "chaos",
        ]  # fmt: skip
        self._said = (folder / "ship.txt").open("ab")
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._argv, stdout=self._said, stderr=self._said)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self.process = self._start()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._said.close()


@contextlib.contextmanager
def shipping(url: str, folder: Path) -> Iterator[Shipper]:
    shipper = Shipper(url, folder)
    try:
        yield shipper
    finally:
        shipper.close()


async def lines_of(url: str) -> dict[str, list[int]]:
    """Return the numbers of all lines in the stream, in order, by file."""
    client = await nats.connect(url)
    try:
        js = client.jetstream()
        # A busy machine may poll less often than every five seconds, after which the server would drop the
        # consumer.
        config = ConsumerConfig(ack_policy=AckPolicy.NONE, inactive_threshold=SETTLE)
        consumer = await js.pull_subscribe("log.>", stream="EVENTS", config=config)
        found: dict[str, list[int]] = defaultdict(list)
        while True:
            try:
                messages = await consumer.fetch(2_000, timeout=1.0)
            except TimeoutError:
                if (await consumer.consumer_info()).num_pending == 0:
                    return found
                continue  # a busy machine
            for message in messages:
                body = orjson.loads(message.data)
                name, number, _ = body["message"].split(" ", 2)
                assert body["source"] == name
                found[name].append(int(number))
    finally:
        await client.close()


async def count(url: str) -> int:
    client = await nats.connect(url)
    try:
        try:
            info = await client.jetstream().stream_info("EVENTS", subjects_filter="log.>")
        except NotFoundError:
            return 0
        return sum((info.state.subjects or {}).values())
    finally:
        await client.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SETTLE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_kills_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """After any number of kills every line of every file is in the stream exactly once, in order."""
    seed = int(os.environ.get("CHAOS_SEED") or random.randrange(10**6))
    choose = random.Random(seed)
    (tmp_path / "logs").mkdir()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(NatsServer(tmp_path / "nats"))
        shipper = stack.enter_context(shipping(server.url, tmp_path))
        until(lambda: "connected" in (tmp_path / "ship.txt").read_text())
        writers = [
            stack.enter_context(
                Writer(
                    tmp_path / "logs" / f"{name}.log",
                    LIMIT * multiple,
                    RATE,
                    random.Random(f"{seed} {name}"),
                    kind=kind,
                )
            )
            for name, (kind, multiple) in KINDS.items()
        ]
        until(
            lambda: asyncio.run(count(server.url)) > 0
        )  # files that were deleted before the shipper saw them do not count
        for _ in range(KILLS):
            time.sleep(choose.uniform(0.05, 2.0))
            if choose.random() < 0.5:
                shipper.kill()
            else:
                server.kill()
                time.sleep(choose.uniform(0.0, 0.5))
                server.start()
        for writer in writers:
            writer.stop()
        written = {writer.path.stem: writer.written for writer in writers}
        deadline = time.monotonic() + SETTLE
        there = 0
        while there < sum(written.values()) and time.monotonic() < deadline:
            assert shipper.process.poll() is None, (tmp_path / "ship.txt").read_text()
            time.sleep(0.5)
            there = asyncio.run(count(server.url))
        time.sleep(1.5)  # repeated lines would arrive now
        found = asyncio.run(lines_of(server.url))
    output = (tmp_path / "ship.txt").read_text()
    wrong = {}
    for name, total in written.items():
        numbers = found[name]
        lost = total - len(set(numbers))
        repeated = len(numbers) - len(set(numbers))
        disorder = [(one, next) for one, next in pairwise(numbers) if next < one]
        if lost or repeated or disorder:
            first = sorted(set(range(1, total + 1)) - set(numbers))[:3]
            wrong[name] = f"of {total}: lost {lost} {first}, repeated {repeated}, out of order {disorder[:3]}"
    assert not wrong, f"seed {seed}: {wrong}\n{output[-2000:]}"
    assert sum(writer.rotations for writer in writers) >= 2 * len(writers), "the files must have rotated"
    trouble = re.search("Traceback|rror:", output)
    assert trouble is None, output[trouble.start() : trouble.start() + 4000]
    if FULL:
        rotations = sum(writer.rotations for writer in writers)
        print(f"{KILLS} kills, {sum(written.values())} lines, {rotations} rotations: 0, 0, 0")
