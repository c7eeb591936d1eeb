"""What the monitor's file says (PROTOCOL.md section 7), and what it means once every default is filled in.

Invariant: a file that is accepted can be run. Every probe has a complete schedule, every id makes a legal
subject, every exchange that a gateway names is there.
"""

from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator
from tickertape.producers.monitor.gateway.flapping import FlappingSettings
from tickertape.producers.monitor.gateway.model import Check, Gateway
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.gateway.trading_hours import (
    WEEK,
    Sessions,
    Span,
    overlapping,
    parse_holidays,
    parse_span,
)
from tickertape.producers.monitor.probes import Probe
from tickertape.producers.monitor.probes.settings import ProbeSettings, Schedule
from tickertape.producers.monitor.types import Duration, Id, Settings

MAX_GATEWAYS: Final = 10_000


def _zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError(f"{text!r} is no zone; write one such as Asia/Shanghai or Europe/London") from None


def _spans(value: object) -> object:
    return tuple(parse_span(item) for item in value) if isinstance(value, list) else value


def _holidays(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [day for item in value for day in parse_holidays(str(item))]


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class ExchangeSettings(Settings):
    """When an exchange is open; a gateway names it as its ``session``."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    zone: Annotated[ZoneInfo, BeforeValidator(lambda value: _zone(str(value)))]
    days: Annotated[list[Day], Field(min_length=1)] = Field(default=["mon", "tue", "wed", "thu", "fri"])
    spans: Annotated[tuple[Span, ...], BeforeValidator(_spans), Field(min_length=1)]
    holidays: Annotated[list[Any], BeforeValidator(_holidays)] = Field(default=[])
    night_before_holiday: bool = True

    @field_validator("spans")
    @classmethod
    def _apart(cls, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        if (both := overlapping(spans)) is not None:
            first, second = (f"{span.begin:%H:%M}-{span.end:%H:%M}" for span in both)
            raise ValueError(f"{first} and {second} overlap; make one span of them")
        return spans

    def sessions(self) -> Sessions:
        """The calendar."""
        days = frozenset(WEEK.index(day) for day in self.days)
        holidays = frozenset(self.holidays)
        return Sessions(self.zone, days, self.spans, holidays, self.night_before_holiday)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    return text


class GatewaySchedule(Schedule):
    """What ``defaults`` and a gateway can set for all probes together."""

    dwell: Duration | None = None
    """Least time in a status before a better one is told; a worse one never waits."""
    flapping: FlappingSettings | None = None


class GatewaySettings(GatewaySchedule):
    """A gateway as it stands in the file."""

    id: Id
    type: Id
    group: Annotated[str, AfterValidator(_not_empty)] | None = None
    labels: dict[str, str] = Field(default={})
    session: str | None = None
    recovery: RecoverySettings | None = None
    probes: Annotated[list[Probe], Field(min_length=1)]

    @field_validator("probes")
    @classmethod
    def _named_apart(cls, probes: list[ProbeSettings]) -> list[ProbeSettings]:
        seen: set[str] = set()
        for probe in probes:
            if probe.name in seen:
                raise ValueError(f"two probes are called {probe.name!r}; give one of them a 'label'")
            seen.add(probe.name)
        return probes


class ConnectivitySettings(Schedule):
    """How the monitor finds out whether it can reach anything at all: one probe that passes is enough."""

    probes: Annotated[list[Probe], Field(min_length=1)]


class MonitorConfig(Settings):
    """The whole file."""

    defaults: GatewaySchedule = GatewaySchedule()
    connectivity: ConnectivitySettings | None = None
    exchanges: dict[str, ExchangeSettings] = Field(default={})
    gateways: Annotated[list[GatewaySettings], Field(min_length=1, max_length=MAX_GATEWAYS)]

    def resolved(self) -> list[Gateway[ProbeSettings]]:
        """The gateways, each probe with the nearest setting of its schedule."""
        return [self._resolved(gateway) for gateway in self.gateways]

    def connectivity_checks(self) -> list[Check[ProbeSettings]]:
        """Probes of the monitor's own connectivity; empty when the file names none."""
        if self.connectivity is None:
            return []
        return [_check(probe, self.connectivity, self.defaults) for probe in self.connectivity.probes]

    def _resolved(self, gateway: GatewaySettings) -> Gateway[ProbeSettings]:
        dwell = gateway.dwell if gateway.dwell is not None else self.defaults.dwell
        return Gateway(
            id=gateway.id,
            type=gateway.type,
            group=gateway.group,
            labels=gateway.labels,
            checks=tuple(_check(probe, gateway, self.defaults) for probe in gateway.probes),
            sessions=self.exchanges[gateway.session].sessions() if gateway.session is not None else None,
            dwell=dwell or 0.0,
            flapping=gateway.flapping or self.defaults.flapping or FlappingSettings(),
            recovery=gateway.recovery,
        )


BUILT_IN: Final = Schedule(interval="5s", timeout="2s", unhealthy_after=3, healthy_after=2)
"""The schedule where the file says nothing."""


def _check(probe: ProbeSettings, *wider: Schedule) -> Check[ProbeSettings]:
    def nearest(setting: str) -> Any:
        levels = (probe, *wider, BUILT_IN)
        return next(value for level in levels if (value := getattr(level, setting)) is not None)

    return Check(
        probe,
        nearest("interval"),
        nearest("timeout"),
        nearest("unhealthy_after"),
        nearest("healthy_after"),
    )
