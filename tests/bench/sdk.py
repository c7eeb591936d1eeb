"""Scenario ``sdk``: rate at which a program publishes, and cost of its logging calls.

One publisher runs at full speed; each event is validated and acknowledged by a real stream. Then logging
calls through the handler are timed one by one.
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

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Sdk:
    """Cost of publishing and logging.

    Attributes:
        rate: acknowledged events per second.
        cores: cores used by this process while publishing.
        per_core: acknowledged events per second of CPU.
        emit_us: median microseconds of a logging call with the handler.
        emit_p99_us: 99th percentile of the same.
    """

    rate: float
    cores: float
    per_core: float
    emit_us: float
    emit_p99_us: float


def sdk(seconds: float, progress: Progress) -> Sdk:
    """Measure the SDK.

    Args:
        seconds: length of the window.
        progress: called with each line of progress.
    """
    progress(f"sdk: events of {SIZE} bytes, one publisher ...")
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        url = f"nats://127.0.0.1:{nats_port}"
        rate, cores = asyncio.run(_publish(url, seconds))
        median, slow = _log(url)
    result = Sdk(rate, cores, rate / cores, median, slow)
    progress(
        f"sdk: {result.rate:,.0f} acknowledged events/s with {result.cores:.2f} cores,"
        f" {result.per_core:,.0f} per core; a logging call takes {result.emit_us:.0f} us,"
        f" p99 {result.emit_p99_us:.0f} us"
    )
    return result


def _event() -> SystemLog:
    bare = SystemLog(level="INFO", message="", source="bench")
    return SystemLog(level="INFO", message="x" * (SIZE - len(bare.encode())), source="bench")


async def _publish(url: str, seconds: float) -> tuple[float, float]:
    """Return the acknowledged events per second and the cores used by this process."""
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
        await publisher.flush()  # raises if an event was not acknowledged
        elapsed = time.perf_counter() - began
        return number / elapsed, (time.process_time() - cpu) / elapsed


def _log(url: str) -> tuple[float, float]:
    """Return the median and the 99th percentile of a logging call, in microseconds."""
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
            raise BenchError(f"the handler dropped {handler.dropped} records; is the machine overloaded?")
    finally:
        log.removeHandler(handler)
        handler.close()
    costs = sorted(costs[_WARM:])
    return costs[len(costs) // 2] / 1000, costs[len(costs) * 99 // 100] / 1000
