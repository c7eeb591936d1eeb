"""Plan and results of a run of the benchmark."""

from dataclasses import dataclass, field
from typing import Final

from tests.bench.attackers import Attack
from tests.bench.conditions import Conditions
from tests.bench.detection import Detection
from tests.bench.gateway_history import GatewayHistory
from tests.bench.many_files import ManyFiles
from tests.bench.measures.targets import NAIVE, NATS, OURS, PLAIN
from tests.bench.monitoring import Monitoring
from tests.bench.run import Row
from tests.bench.sdk import Sdk
from tests.bench.shipping import Shipping
from tests.bench.starting import Starting
from tests.bench.tokens import TokenCost
from tests.bench.unread import Unread

SCENARIOS: Final = (
    "same", "max", "idle", "memory", "ingest",
    "stalled", "filters", "reconnect", "replay", "deflate", "streams", "growth", "monitor", "detection",
    "history", "ship", "files", "sdk", "tokens", "attackers", "unread", "conditions", "start",
)  # fmt: skip
PEERS: Final = (OURS, NATS, NAIVE, PLAIN)


@dataclass(frozen=True, slots=True)
class Plan:
    """Scenarios, targets and sizes of a run.

    Attributes:
        only: scenarios to run.
        targets: targets to measure.
        clients: connections in ``same``.
        max_clients: connections to our relay in ``max``, ``stalled``, ``filters``, ``deflate``,
            ``streams`` and ``conditions``.
        rate: events per second in these scenarios.
        seconds: length of a window.
        connections: idle connections in ``memory``; maximum in ``deflate``.
        backlog: events in ``ingest``.
        attempts: maximum number of attempts of the search in ``max``.
        reconnecting: clients in ``reconnect``.
        replay_events: events in ``replay``.
        growth: numbers of connections in ``growth``, one row each.
        gateways: gateways in ``monitor`` and ``history``.
        failing_seconds: seconds of ``detection``.
        transitions: transitions of gateways in ``history``.
        lines: lines in ``ship``.
        files: numbers of files in ``files``, one row each.
        spread_lines: lines in ``files``.
        attack_seconds: seconds of each attack in ``attackers``.
        attack_rate: attackers per second in ``attackers``.
        states: states in ``unread``.
        unread: clients that never read in ``unread``.
        stored: events in the stream in ``start``.
        starts: number of starts in ``start``.
    """

    only: tuple[str, ...] = SCENARIOS
    targets: tuple[str, ...] = PEERS
    clients: int = 200
    max_clients: int = 1_000
    rate: float = 1_000
    seconds: float = 10
    connections: int = 5_000
    backlog: int = 200_000
    attempts: int = 7
    reconnecting: int = 10_000
    replay_events: int = 1_000_000
    growth: tuple[int, ...] = (10, 100, 1_000, 10_000)
    gateways: int = 1_000
    failing_seconds: float = 120
    transitions: int = 200_000
    lines: int = 300_000
    files: tuple[int, ...] = (100, 10_000)
    spread_lines: int = 100_000
    attack_seconds: float = 30
    attack_rate: float = 2_000
    states: int = 58_000
    unread: int = 200
    stored: int = 100_000
    starts: int = 10


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of our relay with idle connections.

    Attributes:
        connections: number of connections in addition to the first hundred.
        before: resident bytes with the first hundred connections.
        after: resident bytes with all connections.
    """

    connections: int
    before: int
    after: int

    @property
    def each(self) -> float:
        """Bytes per connection."""
        return (self.after - self.before) / self.connections


@dataclass(frozen=True, slots=True)
class Ingest:
    """Cost of ingesting a backlog.

    Attributes:
        target: name of the target.
        msg_ids: whether the events had ``Nats-Msg-Id`` headers.
        events: number of events.
        cpu: CPU seconds used.
        seconds: elapsed time in seconds.
    """

    target: str
    msg_ids: bool
    events: int
    cpu: float
    seconds: float

    @property
    def per_core(self) -> float:
        """Events per second of CPU."""
        return self.events / self.cpu if self.cpu else 0.0


@dataclass(frozen=True, slots=True)
class Reconnect:
    """Result of many clients that reconnected simultaneously.

    Attributes:
        clients: number of clients that connected.
        requested: planned number of clients; more than ``clients`` if the limit on descriptors is lower.
        connected: seconds until all were ready; None if they never were.
        live: seconds until all had received an event younger than a second; None if they never did.
        events: number of events checked, over all clients.
        lost: number of events that a client did not receive.
        repeated: number of events received again or out of order.
        gaps: number of ``gap`` messages.
        behind: number of clients that did not receive the last event.
        cpu: CPU seconds of our relay until all were live.
        load_cores: cores used by the clients.
    """

    clients: int
    requested: int
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
    def exactly_once(self) -> bool:
        """Whether every client received every event once, in order."""
        return not (self.lost or self.repeated or self.gaps or self.behind)


@dataclass(frozen=True, slots=True)
class Replay:
    """Cost of reading old events from the stream.

    Attributes:
        target: name of the target.
        events: number of events received.
        seconds: seconds from the request to the last event.
        cpu: CPU seconds of the target.
        lost: number of events not received.
        repeated: number of events received again or out of order.
    """

    target: str
    events: int
    seconds: float
    cpu: float
    lost: int = 0
    repeated: int = 0

    @property
    def rate(self) -> float:
        """Events per second."""
        return self.events / self.seconds if self.seconds else 0.0

    @property
    def cores(self) -> float:
        """Cores used by the target."""
        return self.cpu / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Results:
    """Results of a run; empty or None for scenarios that were not run.

    Attributes:
        stalled: row with all clients reading, and row with some stalled.
        stalled_clients: number of stalled clients.
        filters: row with one shared filter, and row with one filter per client.
        deflate: row without deflate, and row with it.
        deflate_memory: idle connections without deflate, and with it.
        streams: row of the WebSocket, and of each HTTP stream.
    """

    same: list[Row] = field(default_factory=list)
    max_load: list[Row] = field(default_factory=list)
    idle: Row | None = None
    memory: Memory | None = None
    ingest: list[Ingest] = field(default_factory=list)
    stalled: list[Row] = field(default_factory=list)
    stalled_clients: int = 0
    filters: list[Row] = field(default_factory=list)
    reconnect: Reconnect | None = None
    replay: list[Replay] = field(default_factory=list)
    deflate: list[Row] = field(default_factory=list)
    deflate_memory: list[Memory] = field(default_factory=list)
    streams: list[Row] = field(default_factory=list)
    growth: list[Row] = field(default_factory=list)
    monitoring: Monitoring | None = None
    detection: Detection | None = None
    history: GatewayHistory | None = None
    shipping: Shipping | None = None
    files: list[ManyFiles] = field(default_factory=list)
    sdk: Sdk | None = None
    tokens: list[TokenCost] = field(default_factory=list)
    attackers: list[Attack] = field(default_factory=list)
    unread: Unread | None = None
    conditions: Conditions | None = None
    starting: Starting | None = None
