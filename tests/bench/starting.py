"""Scenario ``start``: seconds until a relay is ready, with NATS running and events in the stream.

Our relay is started repeatedly; each start is timed from its exec until ``/readyz`` returns 200.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Final

from tests.bench.load.children import module
from tests.bench.measures import targets

_FILL_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class Starting:
    """Duration of starts.

    Attributes:
        events: number of events in the stream.
        seconds: duration of each start.
    """

    events: int
    seconds: tuple[float, ...]

    @property
    def median_seconds(self) -> float:
        """Median duration of a start."""
        return median(self.seconds)


def start(events: int, starts: int, progress: Callable[[str], None]) -> Starting:
    """Measure starts.

    Args:
        events: number of events in the stream.
        starts: number of starts.
        progress: called with each line of progress.
    """
    progress(f"start: {starts} starts with {events:,} events in the stream ...")
    seconds = []
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        spec = {"mode": "backlog", "nats_port": nats_port, "count": events, "size": 300, "msg_ids": False}
        with module("the publisher", "publisher", **spec) as publisher:
            publisher.receive(30)
            publisher.send(go=True)
            publisher.receive(_FILL_SECONDS)
        for _ in range(starts):
            began = time.monotonic()
            with targets.relay(nats_port):
                seconds.append(time.monotonic() - began)
    result = Starting(events, tuple(seconds))
    progress(f"start: ready after {result.median_seconds:.2f} s, at most {max(seconds):.2f} s")
    return result
