"""Three monitors on a busy machine, of which one is partitioned: failures are found fast, and none is false.

One monitor reaches only half of the gateways, and NATS only now and then; both cores are busy. A gateway
fails and returns; 180 others are up all the time. ``CHAOS=full`` runs for ten minutes, ``PARTITION_MINUTES``
for another time.
"""

import asyncio
import contextlib
import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.integration.monitor.test_many_monitors import started
from tests.integration.monitor.test_monitor import Statuses, hold, listening, serving
from tests.support.servers.cable import Cable, cable
from tests.support.servers.nats_server import NatsServer, free_port

MINUTES: Final = float(
    os.environ.get("PARTITION_MINUTES") or (10 if os.environ.get("CHAOS") == "full" else 0)
)
STEADY: Final = 180
MAX_DETECTION: Final = 2.0
"""Seconds until a failure is published, for 95 % of the failures, with an interval of one second."""


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """Keep both cores busy."""
    spinning = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        yield
    finally:
        for process in spinning:
            process.kill()
            process.wait()


def write_file(folder: Path, failing: int, *steady: int) -> Path:
    """Write the file of a monitor, with the ports at which it probes the gateways; steady ones take turns."""
    folder.mkdir()
    ports = {"failing": failing}
    ports |= {f"steady{number}": steady[number % len(steady)] for number in range(STEADY)}
    lines = ["defaults: {interval: 1s, timeout: 1s, unhealthy_after: 2, healthy_after: 2}", "gateways:"]
    for gateway, port in ports.items():
        probe = f"{{kind: tcp, address: '127.0.0.1:{port}', label: tcp}}"
        lines.append(f"  - {{id: {gateway}, type: t, probes: [{probe}]}}")
    path = folder / "gateways.yaml"
    path.write_text("\n".join(lines))
    return path


async def toggle(wire: Cable) -> None:
    """Cut a cable and repair it again and again."""
    while True:
        await asyncio.sleep(random.uniform(5, 20))
        wire.cut()
        await asyncio.sleep(random.uniform(5, 20))
        wire.repair()


@contextlib.asynccontextmanager
async def running(coroutine: "asyncio.Future[None]") -> AsyncIterator[None]:
    """Run a task until the context is left."""
    try:
        yield
    finally:
        coroutine.cancel()
        await asyncio.wait({coroutine})


async def measure(statuses: Statuses, failing: int, minutes: float) -> list[float]:
    """Let the gateway fail and return; return the seconds until each failure was published."""
    found = []
    begun = time.monotonic()
    while time.monotonic() - begun < 60 * minutes:
        async with serving(hold, failing):
            await statuses.until("failing", "HEALTHY")
            await asyncio.sleep(random.uniform(1, 4))
        closed = time.monotonic()
        await statuses.until("failing", "UNHEALTHY")
        found.append(time.monotonic() - closed)
    return found


@pytest.mark.skipif(not MINUTES, reason="takes ten minutes: CHAOS=full")
def test_a_partitioned_monitor_neither_delays_nor_causes_transitions(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """95 % of the failures are published within two seconds, and nothing else is."""

    async def main() -> tuple[list[float], Statuses]:
        port, failing = int(nats_server.url.rpartition(":")[2]), free_port()
        async with (
            listening(nats_server.url) as statuses,
            serving(hold) as steady,
            cable(port) as wire,
        ):
            file = write_file(tmp_path / "good", failing, steady)
            partitioned = write_file(tmp_path / "partitioned", free_port(), steady, free_port())
            async with (
                started(nats_server.url, file, "m1"),
                started(nats_server.url, file, "m2"),
            ):
                await statuses.until("failing", "UNHEALTHY")
                for number in range(STEADY):
                    await statuses.until(f"steady{number}", "HEALTHY")
                url = f"nats://127.0.0.1:{wire.port}"
                async with started(url, partitioned, "m3"), running(asyncio.ensure_future(toggle(wire))):
                    with busy_cores():
                        return await measure(statuses, failing, MINUTES), statuses

    detections, statuses = asyncio.run(main())
    detections.sort()
    p95 = detections[int(0.95 * (len(detections) - 1))]
    print(f"{len(detections)} failures, p50 {detections[len(detections) // 2]:.2f} s, p95 {p95:.2f} s")
    for number in range(STEADY):
        assert set(itertools.pairwise(statuses.of(f"steady{number}"))) <= {
            ("UNKNOWN", "HEALTHY"),
            ("HEALTHY", "HEALTHY"),
        }
    states = [status for status, _ in itertools.groupby(statuses.of("failing"))]
    assert all(before != "RECOVERING" or after == "HEALTHY" for before, after in itertools.pairwise(states))
    assert states.count("UNHEALTHY") == 1 + len(detections)
    assert p95 <= MAX_DETECTION, detections
