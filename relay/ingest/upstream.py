"""How a relay stands with NATS, in numbers."""

from typing import NamedTuple


class Upstream(NamedTuple):
    """How a relay stands with NATS.

    Attributes:
        lag: events that the stream holds and the relay has not taken in yet.
        reconnects: connections after the first.
        round_trip: seconds to NATS and back; None while it does not answer.
        reading: readers of the stream that are at work.
    """

    lag: int = 0
    reconnects: int = 0
    round_trip: float | None = None
    reading: int = 0
