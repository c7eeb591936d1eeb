"""Scenario ``detection``: how fast one monitor finds failures with all cores busy, and how often it errs.

Gateways fail and return at random times, others are up all the time; the interval is one second, and a
gateway is unhealthy after two failures. Each failure is timed until a WebSocket client of a relay knows it.

With three monitors, of which one is partitioned, ``PARTITION_MINUTES=10 pytest -s
tests/chaos/test_monitor_partition.py`` prints the same figures.
"""

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson
from websockets.sync.client import connect

from tests.bench.load.children import BenchError, Child, module, running
from tests.bench.measures import targets
from tests.bench.monitoring import running_monitor, write_config
from tests.support.servers.nats_server import free_port

FAILING: Final = 20
STEADY: Final = 20
LONGEST: Final = 10.0
"""Seconds after which a failure was not found."""


class Change(NamedTuple):
    """Status of a gateway that a client has received.

    Attributes:
        time: monotonic seconds.
        gateway: number of the gateway; the failing ones come first.
        status: the status.
    """

    time: float
    gateway: int
    status: str


@dataclass(frozen=True, slots=True)
class Detection:
    """Detected failures.

    Attributes:
        seconds: length of the run.
        delays: seconds from each failure until the client knew it, ascending.
        missed: failures that were not found within ``LONGEST``.
        false: transitions without a cause.
        busy: whether the scenario kept all cores busy.
    """

    seconds: float
    delays: tuple[float, ...]
    missed: int
    false: int
    busy: bool = True

    def percentile(self, percent: int) -> float:
        """Return a percentile of the delays in seconds; of none, infinity."""
        return self.delays[(len(self.delays) - 1) * percent // 100] if self.delays else float("inf")


def judge(
    failures: Iterable[tuple[int, float]], changes: list[Change], end: float
) -> tuple[list[float], int, int]:
    """Match failures with changes.

    Args:
        failures: number of the gateway, and monotonic seconds, of each failure.
        changes: what the client received.
        end: end of the run in monotonic seconds; a failure shortly before it is not missed.

    Returns:
        delays, number of missed failures, number of false transitions.
    """
    delays: list[float] = []
    causes: dict[int, list[float]] = {}
    for gateway, cause in failures:
        causes.setdefault(gateway, []).append(cause)
    missed = false = 0
    for gateway in {change.gateway for change in changes} | causes.keys():
        own = [change for change in changes if change.gateway == gateway]
        found = [change.time for change in own if change.status == "UNHEALTHY"]
        for cause in causes.get(gateway, []):
            due = [time for time in found if cause <= time <= cause + LONGEST][:1]
            found = [time for time in found if time not in due]
            # One that fails again before it was known to be up does not change its status.
            if [change.status for change in own if change.time < cause][-1:] != ["HEALTHY"]:
                continue
            delays += [time - cause for time in due]
            missed += not due and cause < end - LONGEST
        false += len(found)
    return sorted(delays), missed, false


def detection(seconds: float, progress: Callable[[str], None], *, busy: bool = True) -> Detection:
    """Measure the detection of failures.

    Args:
        seconds: length of the run.
        progress: called with each line of progress.
        busy: whether to keep all cores busy; False on a machine that is.
    """
    progress(f"detection: {FAILING} gateways fail and return, {STEADY} are up, for {seconds:.0f} s ...")
    failing, steady, port = [free_port() for _ in range(FAILING)], free_port(), free_port()
    ports = [*failing, *STEADY * [steady]]
    config = write_config(1.0, 2, [f"{{kind: tcp, address: '127.0.0.1:{one}'}}" for one in ports])
    changes: list[Change] = []
    with (
        targets.ours() as target,
        module("the gateways", "toggling", failing=failing, steady=steady) as gateways,
        connect(f"ws://127.0.0.1:{target.port}/ws?subjects=gateway.%3E") as feed,
        running_monitor(target.nats_port, config, port),
        _busy_cores() if busy else contextlib.nullcontext(),
    ):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                changes += _changes(orjson.loads(feed.recv(timeout=left)), time.monotonic())
        failures = [(failing.index(found["port"]), found["closed"]) for found in _reports(gateways)]
    delays, missed, false = judge(failures, changes, end)
    found = Detection(seconds, tuple(delays), missed, false, busy)
    progress(
        f"detection: {len(delays)} failures found, p50 {found.percentile(50):.2f} s, p95"
        f" {found.percentile(95):.2f} s; {missed} missed, {false} transitions without a failure"
    )
    return found


def _changes(message: dict[str, Any], received: float) -> list[Change]:
    events = [item["event"] for item in message.get("events", ())]
    return [
        Change(received, int(event["gateway_id"][1:]), event["current_status"])
        for event in events
        if event["current_status"] != event["previous_status"]
    ]


def _reports(child: Child) -> Iterator[dict[str, Any]]:
    """Yield the reports that a child has written so far."""
    with contextlib.suppress(BenchError):
        while True:
            yield child.receive(0.1)


@contextlib.contextmanager
def _busy_cores() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for _ in range(os.cpu_count() or 1):
            stack.enter_context(running("a busy process", [sys.executable, "-c", "while True: pass"]))
        yield
