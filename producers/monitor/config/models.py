"""Models of the monitor's file (PROTOCOL.md section 7), which resolve to gateways with complete settings.

Invariant: an accepted file can be run. Every probe has a complete schedule, every id is a legal subject
token, and every exchange that a gateway refers to exists.
"""

from collections import Counter
from functools import cached_property
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from tickertape.contracts.events import GatewayStatusChange
from tickertape.producers.monitor.gateway.flapping import FlappingSettings
from tickertape.producers.monitor.gateway.model import Check, Gateway
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.gateway.trading_hours import (
    WEEK,
    Sessions,
    Span,
    find_overlap,
    parse_holidays,
    parse_span,
)
from tickertape.producers.monitor.probes import Probe
from tickertape.producers.monitor.probes.settings import ProbeSettings, Schedule
from tickertape.producers.monitor.types import (
    MAX_NAME_LENGTH,
    Duration,
    Id,
    Settings,
    check_name,
    drop_extensions,
)

from tickertape.time_zones import parse_zone

MAX_GATEWAYS: Final = 10_000
"""Gateways per file; it bounds the tasks, subjects and metric labels of one monitor."""


def _parse_spans(value: object) -> object:
    return tuple(parse_span(item) for item in value) if isinstance(value, list) else value


def _check_overlaps(spans: tuple[Span, ...]) -> tuple[Span, ...]:
    if (overlap := find_overlap(spans)) is not None:
        first, second = (f"{span.begin:%H:%M}-{span.end:%H:%M}" for span in overlap)
        raise ValueError(f"{first} and {second} overlap; merge them into one span")
    return spans


def _parse_holiday_list(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [day for item in value for day in parse_holidays(item)]


def _parse_zone(value: object) -> ZoneInfo:
    if isinstance(value, list | dict):
        raise ValueError("is not one name; use a time zone such as Asia/Shanghai")
    return parse_zone(str(value))


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
Spans = Annotated[
    tuple[Span, ...], BeforeValidator(_parse_spans), Field(min_length=1), AfterValidator(_check_overlaps)
]


class ExchangeSettings(Settings):
    """Trading sessions of an exchange; a gateway refers to an exchange with ``session``."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    zone: Annotated[ZoneInfo, BeforeValidator(_parse_zone)]
    days: Annotated[list[Day], Field(min_length=1)] = Field(default=["mon", "tue", "wed", "thu", "fri"])
    spans: Spans
    holidays: Annotated[list[Any], BeforeValidator(_parse_holiday_list)] = Field(default=[])
    night_before_holiday: bool = True
    half_days: dict[str, Spans] = Field(default={})
    """Spans of single days, or of each day of a range, in place of the usual ones."""

    @model_validator(mode="after")
    def _check_days_differ(self) -> "ExchangeSettings":
        days = Counter(day for text in self.half_days for day in parse_holidays(text))
        for day, number in days.items():
            if number > 1:
                raise ValueError(f"half day {day} occurs twice; remove it once")
            if day in self.holidays:
                raise ValueError(f"{day} is a holiday and a half day; remove one of them")
        return self

    def sessions(self) -> Sessions:
        """Return the trading calendar."""
        return Sessions(
            zone=self.zone,
            days=frozenset(WEEK.index(day) for day in self.days),
            spans=self.spans,
            holidays=frozenset(self.holidays),
            night_before_holiday=self.night_before_holiday,
            half_days={day: spans for text, spans in self.half_days.items() for day in parse_holidays(text)},
        )


class GatewaySchedule(Schedule):
    """Schedule for all probes of a gateway, in ``defaults`` or in the gateway itself."""

    dwell: Duration | None = None
    """Minimum time in a status before a better one is published; a worse one is published immediately."""
    flapping: FlappingSettings | None = None


class GatewaySettings(GatewaySchedule):
    """Gateway in the file."""

    id: Id
    type: Id
    group: Annotated[str, AfterValidator(check_name)] | None = None
    labels: Annotated[dict[str, Annotated[str, Field(max_length=MAX_NAME_LENGTH)]], Field(max_length=64)] = (
        Field(default={})
    )
    session: str | None = None
    recovery: RecoverySettings | None = None
    probes: Annotated[list[Probe], Field(min_length=1)]

    @property
    def subject(self) -> str:
        """Subject of its status, without the deployment's prefix."""
        return GatewayStatusChange.subject_of(gateway_type=self.type, gateway_id=self.id)

    @field_validator("probes")
    @classmethod
    def _check_unique_names(cls, probes: list[ProbeSettings]) -> list[ProbeSettings]:
        seen: set[str] = set()
        for probe in probes:
            if probe.name in seen:
                raise ValueError(f"two probes are named {probe.name!r}; give one of them a 'label'")
            seen.add(probe.name)
        return probes


class ConnectivitySettings(Schedule):
    """Checks of the monitor's own connectivity; the monitor is online if at least one probe succeeds."""

    probes: Annotated[list[Probe], Field(min_length=1)]

    @field_validator("probes")
    @classmethod
    def _check_probes_connect(cls, probes: list[ProbeSettings]) -> list[ProbeSettings]:
        if any(probe.listens_to is not None for probe in probes):
            raise ValueError("a probe that only listens says nothing about the network; use another kind")
        return probes


class MonitorConfig(Settings):
    """Top level of the file."""

    defaults: GatewaySchedule = GatewaySchedule()
    connectivity: ConnectivitySettings | None = None
    exchanges: Annotated[dict[str, ExchangeSettings], BeforeValidator(drop_extensions)] = Field(default={})
    gateways: Annotated[list[GatewaySettings], Field(min_length=1, max_length=MAX_GATEWAYS)]

    @cached_property
    def subjects(self) -> frozenset[str]:
        """Subjects of the statuses of all gateways, without the deployment's prefix."""
        return frozenset(gateway.subject for gateway in self.gateways)

    def resolve_gateways(self) -> list[Gateway[ProbeSettings]]:
        """Return all gateways with complete schedules."""
        return [self.resolve_gateway(gateway) for gateway in self.gateways]

    def connectivity_checks(self) -> list[Check[ProbeSettings]]:
        """Return the checks of the monitor's own connectivity; empty if the file has none."""
        if self.connectivity is None:
            return []
        return [_check(probe, self.connectivity, self.defaults) for probe in self.connectivity.probes]

    def resolve_gateway(self, gateway: GatewaySettings) -> Gateway[ProbeSettings]:
        """Return a gateway with complete schedules; the innermost setting of each value applies."""
        # Only None inherits: 0 is a setting of its own.
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


BUILT_IN_SCHEDULE: Final = Schedule(interval="5s", timeout="2s", unhealthy_after=3, healthy_after=2)
"""Schedule for values that the file does not set."""


def _check(probe: ProbeSettings, *enclosing: Schedule) -> Check[ProbeSettings]:
    def innermost(setting: str) -> Any:
        levels = (probe, *enclosing, BUILT_IN_SCHEDULE)
        return next(value for level in levels if (value := getattr(level, setting)) is not None)

    return Check(
        probe,
        innermost("interval"),
        innermost("timeout"),
        innermost("unhealthy_after"),
        innermost("healthy_after"),
    )
