"""What is to be run, and what came out of it."""

from dataclasses import dataclass, field
from typing import Final

from tests.bench.measures.targets import NAIVE, NATS, OURS, PLAIN
from tests.bench.monitoring import Monitoring
from tests.bench.run import Row
from tests.bench.sdk import Sdk
from tests.bench.shipping import Shipping
from tests.bench.starting import Starting
from tests.bench.strangers import Siege
from tests.bench.tokens import TokenCost

SCENARIOS: Final = (
    "same", "most", "idle", "memory", "intake",
    "stalled", "filters", "comeback", "replay", "deflate", "growth", "monitor", "ship", "sdk",
    "tokens", "strangers", "start",
)  # fmt: skip
PEERS: Final = (OURS, NATS, NAIVE, PLAIN)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        only: scenarios.
        who: targets.
        clients: connections in ``same``.
        most_clients: connections of our relay in ``most``, ``stalled``, ``filters`` and ``deflate``.
        rate: events each second in these.
        seconds: length of a window.
        connections: idle connections in ``memory``; at most so many in ``deflate``.
        backlog: events in ``intake``.
        attempts: tries of the search in ``most``.
        returning: clients in ``comeback``.
        old: events in ``replay``.
        growth: connections in ``growth``, one row each.
        gateways: in ``monitor``.
        lines: in ``ship``.
        siege: seconds of each attack in ``strangers``; ``strangers`` of them come a second.
        stored: events in the stream in ``start``, which starts the relay ``starts`` times.
    """

    only: tuple[str, ...] = SCENARIOS
    who: tuple[str, ...] = PEERS
    clients: int = 200
    most_clients: int = 1_000
    rate: float = 1_000
    seconds: float = 10
    connections: int = 5_000
    backlog: int = 200_000
    attempts: int = 7
    returning: int = 10_000
    old: int = 1_000_000
    growth: tuple[int, ...] = (10, 100, 1_000, 10_000)
    gateways: int = 1_000
    lines: int = 300_000
    siege: float = 30
    strangers: float = 2_000
    stored: int = 100_000
    starts: int = 10


@dataclass(frozen=True, slots=True)
class Memory:
    """What idle connections cost our relay.

    Attributes:
        connections: how many came on top of the first.
        before: resident bytes with the first hundred connected.
        after: resident bytes with all.
    """

    connections: int
    before: int
    after: int

    @property
    def each(self) -> float:
        """Bytes for each connection."""
        return (self.after - self.before) / self.connections


@dataclass(frozen=True, slots=True)
class Intake:
    """What taking in a backlog cost.

    Attributes:
        who: the target.
        msg_ids: whether the events had ``Nats-Msg-Id`` headers.
        events: how many.
        cpu: CPU seconds used.
        seconds: time it took.
    """

    who: str
    msg_ids: bool
    events: int
    cpu: float
    seconds: float

    @property
    def per_core(self) -> float:
        """Events for each second of CPU."""
        return self.events / self.cpu if self.cpu else 0.0


@dataclass(frozen=True, slots=True)
class Comeback:
    """What became of clients that all came back at once.

    Attributes:
        clients: how many connected.
        asked: how many were to; more than ``clients`` where the limit on descriptors is lower.
        connected: seconds until all were served; None when they never were.
        live: seconds until all were sent what was younger than a second; None when they never were.
        events: events checked, over all clients.
        lost: events that a client did not get.
        repeated: events that came again, or out of order.
        gaps: times that the relay said that it left something out.
        behind: clients that did not reach the last event.
        cpu: CPU seconds of our relay until all were live.
        load_cores: cores that the clients used.
    """

    clients: int
    asked: int
    connected: float | None
    live: float | None
    events: int
    lost: int
    repeated: int
    gaps: int
    behind: int
    cpu: float
    load_cores: float

    @property
    def whole(self) -> bool:
        """True when every client got every event once, in order."""
        return not (self.lost or self.repeated or self.gaps or self.behind)


@dataclass(frozen=True, slots=True)
class Replay:
    """What reading old events from the stream took.

    Attributes:
        who: the target.
        events: how many came.
        seconds: time from the request to the last.
        cpu: CPU seconds of the target.
        lost: events that did not come.
        repeated: events that came again, or out of order.
    """

    who: str
    events: int
    seconds: float
    cpu: float
    lost: int = 0
    repeated: int = 0

    @property
    def rate(self) -> float:
        """Events each second."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def cores(self) -> float:
        """Cores that the target used."""
        return self.cpu / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Results:
    """What came out; empty or None where a scenario was not run.

    Attributes:
        stalled: the row with all reading, and the row with some stalled.
        stalled_clients: how many did.
        filters: one filter for all, then one for each.
        deflate: without, then with.
        deflate_memory: idle connections without, then with.
    """

    same: list[Row] = field(default_factory=list)
    most: list[Row] = field(default_factory=list)
    idle: Row | None = None
    memory: Memory | None = None
    intake: list[Intake] = field(default_factory=list)
    stalled: list[Row] = field(default_factory=list)
    stalled_clients: int = 0
    filters: list[Row] = field(default_factory=list)
    comeback: Comeback | None = None
    replay: list[Replay] = field(default_factory=list)
    deflate: list[Row] = field(default_factory=list)
    deflate_memory: list[Memory] = field(default_factory=list)
    growth: list[Row] = field(default_factory=list)
    monitoring: Monitoring | None = None
    shipping: Shipping | None = None
    sdk: Sdk | None = None
    tokens: list[TokenCost] = field(default_factory=list)
    strangers: list[Siege] = field(default_factory=list)
    starting: Starting | None = None
