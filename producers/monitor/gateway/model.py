"""The values that the state of a gateway is made of: what it is, what was last said of it, its silence."""

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.gateway.flapping import FlappingSettings
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.gateway.trading_hours import Sessions


class Probe(Protocol):
    """A probe, of which a gateway's state needs no more than its name."""

    @property
    def name(self) -> str:
        """What events call it; unique among those of its gateway."""


AnyProbe = TypeVar("AnyProbe", bound=Probe, covariant=True)


@dataclass(frozen=True, slots=True)
class Check(Generic[AnyProbe]):
    """A probe with its complete schedule; times in seconds."""

    probe: AnyProbe
    interval: float
    timeout: float
    unhealthy_after: int
    healthy_after: int


@dataclass(frozen=True, slots=True)
class Gateway(Generic[AnyProbe]):
    """A gateway ready to run.

    Attributes:
        sessions: when its exchange is open; None means always.
        dwell: least seconds in a status before a better one is told.
    """

    id: str
    type: str
    group: str | None
    labels: dict[str, str]
    checks: tuple[Check[AnyProbe], ...]
    sessions: Sessions | None = None
    dwell: float = 0.0
    flapping: FlappingSettings = field(default_factory=FlappingSettings)
    recovery: RecoverySettings | None = None

    @property
    def subject(self) -> str:
        """Where its status goes, without the deployment's prefix."""
        return GatewayStatusChange.subject_of(gateway_type=self.type, gateway_id=self.id)

    @property
    def interval(self) -> float:
        """Seconds of its most frequent probe."""
        return min(check.interval for check in self.checks)


@dataclass(frozen=True, slots=True)
class Newest:
    """What the newest event says of a gateway.

    Attributes:
        since: when that status began, as the event says.
        monitor: name of the monitor that wrote it; None for another producer.
        probes: status of each probe by its name; empty for another producer.
        reason: why it is so, when the event names one.
        sequence: of the event in EVENTS; 0 when EVENTS has let it go.
        flapping: whether the event says that it flaps.
        silenced: whether the event says that alerts are not wanted.
    """

    gateway_type: str
    gateway_id: str
    status: Status
    since: str
    monitor: str | None
    probes: dict[str, str]
    reason: str | None = None
    sequence: int = 0
    flapping: bool = False
    silenced: bool = False


@dataclass(frozen=True, slots=True)
class Silence:
    """Alerts on a gateway are not wanted for a while.

    Attributes:
        until: UNIX seconds.
        why: for those who ask.
        by: who said so.
    """

    until: float
    why: str
    by: str
