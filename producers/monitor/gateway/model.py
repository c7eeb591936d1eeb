"""Value types of the gateway state: gateways and checks, stored statuses and silences."""

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.gateway.flapping import FlappingSettings
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.gateway.trading_hours import Sessions


class Probe(Protocol):
    """Probe as far as the gateway state is concerned: its name."""

    @property
    def name(self) -> str:
        """Name in events; unique within its gateway."""


AnyProbe = TypeVar("AnyProbe", bound=Probe, covariant=True)


@dataclass(frozen=True, slots=True)
class Check(Generic[AnyProbe]):
    """Probe with its complete schedule; times are in seconds."""

    probe: AnyProbe
    interval: float
    timeout: float
    unhealthy_after: int
    healthy_after: int


@dataclass(frozen=True, slots=True)
class Gateway(Generic[AnyProbe]):
    """Gateway with all settings resolved.

    Attributes:
        sessions: trading sessions of its exchange; None if it is always open.
        dwell: minimum seconds in a status before a better one is published.
        subject: subject of its status, without the deployment's prefix.
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
    subject: str = field(init=False)

    def __post_init__(self) -> None:
        subject = GatewayStatusChange.subject_of(gateway_type=self.type, gateway_id=self.id)
        object.__setattr__(self, "subject", subject)  # the instance is frozen

    @property
    def cycle(self) -> int:
        """Number of results that it takes to go down and come up again."""
        return min(check.unhealthy_after + check.healthy_after for check in self.checks)

    @property
    def interval(self) -> float:
        """Interval of its most frequent probe, in seconds."""
        return min(check.interval for check in self.checks)


@dataclass(frozen=True, slots=True)
class StoredStatus:
    """Latest status event of a gateway, as stored in NATS.

    Attributes:
        since: start of the status, as RFC 3339 text from the event.
        monitor: name of the monitor that published the event; None for another producer.
        probes: status of each probe by name; empty for another producer.
        reason: reason for the status, if the event has one.
        sequence: sequence of the event in EVENTS; 0 if EVENTS no longer has it.
        flapping: whether the event marks the gateway as flapping.
        silenced: whether the event marks the gateway as silenced.
        vote_sequence: sequence in WATCHDOG up to which the votes decided the status; 0 if none did.
        disputed: whether the event lists the views of monitors that disagree.
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
    vote_sequence: int = 0
    disputed: bool = False


@dataclass(frozen=True, slots=True)
class Silence:
    """Time-limited suppression of alerts and recovery attempts of a gateway.

    Attributes:
        until: end of the silence, UNIX seconds.
        reason: free text from the operator.
        by: user name of the operator.
    """

    until: float
    reason: str
    by: str
