"""The scenario of the start: how long until a relay serves, with NATS up and a stream that is not empty.

start     our relay, started again and again, from its exec until ``/readyz`` says 200.
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
    """How long starts took.

    Attributes:
        events: in the stream.
        seconds: of each start.
    """

    events: int
    seconds: tuple[float, ...]

    @property
    def middle(self) -> float:
        """Median of the seconds."""
        return median(self.seconds)


def start(events: int, starts: int, say: Callable[[str], None]) -> Starting:
    """Measure it.

    Args:
        events: that the stream holds.
        starts: how many.
        say: gets lines of progress.
    """
    say(f"start: {starts} starts with {events:,} events in the stream ...")
    seconds = []
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        spec = {"way": "backlog", "nats_port": nats_port, "count": events, "size": 300, "msg_ids": False}
        with module("the publisher", "publisher", **spec) as publisher:
            publisher.hear(30)
            publisher.say(go=True)
            publisher.hear(_FILL_SECONDS)
        for _ in range(starts):
            began = time.monotonic()
            with targets.relay(nats_port):
                seconds.append(time.monotonic() - began)
    found = Starting(events, tuple(seconds))
    say(f"start: ready after {found.middle:.2f} s, at most {max(seconds):.2f} s")
    return found
