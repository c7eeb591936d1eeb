"""The scenario of the SDK: how many events a program publishes, and what a line of its log costs it.

sdk       one publisher at full speed, each event checked and acknowledged by a real stream; then calls of
          logging through the handler, one by one, and what they take from the program.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.logging_handler import TickertapeHandler
from tickertape.producers.sdk.publisher import Publisher

from tests.bench.load.children import BenchError
from tests.bench.measures import targets

SIZE: Final = 200
"""Bytes of an event."""

BATCH: Final = 200
LINES: Final = 20_000
_WARM: Final = 2_000

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sdk:
    """What publishing and logging cost.

    Attributes:
        rate: acknowledged events per second.
        cores: CPU of this process meanwhile.
        per_core: acknowledged events per second of CPU.
        emit_us: median microseconds of a logging call with the handler.
        emit_p99_us: the same of the slowest in a hundred.
    """

    rate: float
    cores: float
    per_core: float
    emit_us: float
    emit_p99_us: float


def sdk(seconds: float, say: Say) -> Sdk:
    """Measure it.

    Args:
        seconds: length of the window.
        say: gets lines of progress.
    """
    say(f"sdk: events of {SIZE} bytes, one publisher ...")
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        url = f"nats://127.0.0.1:{nats_port}"
        rate, cores = asyncio.run(_publish(url, seconds))
        median, slow = _log(url)
    found = Sdk(rate, cores, rate / cores, median, slow)
    say(
        f"sdk: {found.rate:,.0f} acknowledged events/s with {found.cores:.2f} cores,"
        f" {found.per_core:,.0f} per core; a log line takes {found.emit_us:.0f} us,"
        f" one in a hundred {found.emit_p99_us:.0f} us"
    )
    return found


def _event() -> SystemLog:
    bare = SystemLog(level="INFO", message="", source="bench")
    return SystemLog(level="INFO", message="x" * (SIZE - len(bare.encode())), source="bench")


async def _publish(url: str, seconds: float) -> tuple[float, float]:
    """Acknowledged events per second, and cores of this process."""
    event = _event()
    subject, payload = event.subject, event.encode()
    async with Publisher(url, name="bench") as publisher:
        for _ in range(_WARM):
            await publisher.submit(subject, payload)
        await publisher.flush()
        number = 0
        began, cpu = time.perf_counter(), time.process_time()
        while time.perf_counter() - began < seconds:
            for _ in range(BATCH):
                await publisher.submit(subject, payload)
            number += BATCH
        await publisher.flush()  # raises when one was not acknowledged
        took = time.perf_counter() - began
        return number / took, (time.process_time() - cpu) / took


def _log(url: str) -> tuple[float, float]:
    """Median and 99th percentile of a logging call in microseconds."""
    handler = TickertapeHandler(url, source="bench", capacity=2 * LINES, flush_timeout=60.0)
    log = logging.getLogger("bench.sdk")
    log.setLevel(logging.INFO)
    log.propagate = False
    log.addHandler(handler)
    try:
        costs = []
        for number in range(_WARM + LINES):
            began = time.perf_counter_ns()
            log.info("order %d filled at %s", number, 1.0842, extra={"order": number})
            costs.append(time.perf_counter_ns() - began)
        handler.flush()
        if handler.dropped:
            raise BenchError(f"the handler dropped {handler.dropped} lines; is the machine overloaded?")
    finally:
        log.removeHandler(handler)
        handler.close()
    costs = sorted(costs[_WARM:])
    return costs[len(costs) // 2] / 1000, costs[len(costs) * 99 // 100] / 1000
