"""Models of the monitor's file (PROTOCOL.md section 7), which resolve to gateways with complete settings.

Invariant: an accepted file can be run. Every probe has a complete schedule, every id is a legal subject
token, and every exchange that a gateway refers to exists.
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
    find_overlap,
    parse_holidays,
    parse_span,
)
from tickertape.producers.monitor.probes import Probe
from tickertape.producers.monitor.probes.settings import ProbeSettings, Schedule
from tickertape.producers.monitor.types import Duration, Id, Settings

MAX_GATEWAYS: Final = 10_000
"""Gateways per file; it bounds the tasks, subjects and metric labels of one monitor."""


def _parse_zone(text: str) -> ZoneInfo:
    try:
        return ZoneInfo(text)
    except (OSError, ValueError, KeyError):
        raise ValueError(
            f"{text!r} is not a time zone; use an IANA name such as Asia/Shanghai or Europe/London"
        ) from None


def _parse_spans(value: object) -> object:
    return tuple(parse_span(item) for item in value) if isinstance(value, list) else value


def _parse_holiday_list(value: object) -> object:
    if not isinstance(value, list):
        return value
    return [day for item in value for day in parse_holidays(str(item))]


Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class ExchangeSettings(Settings):
    """Trading sessions of an exchange; a gateway refers to an exchange with ``session``."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    zone: Annotated[ZoneInfo, BeforeValidator(lambda value: _parse_zone(str(value)))]
    days: Annotated[list[Day], Field(min_length=1)] = Field(default=["mon", "tue", "wed", "thu", "fri"])
    spans: Annotated[tuple[Span, ...], BeforeValidator(_parse_spans), Field(min_length=1)]
    holidays: Annotated[list[Any], BeforeValidator(_parse_holiday_list)] = Field(default=[])
    night_before_holiday: bool = True

    @field_validator("spans")
    @classmethod
    def _check_overlaps(cls, spans: tuple[Span, ...]) -> tuple[Span, ...]:
        if (overlap := find_overlap(spans)) is not None:
            first, second = (f"{span.begin:%H:%M}-{span.end:%H:%M}" for span in overlap)
            raise ValueError(f"{first} and {second} overlap; merge them into one span")
        return spans

    def sessions(self) -> Sessions:
        """Return the trading calendar."""
        days = frozenset(WEEK.index(day) for day in self.days)
        holidays = frozenset(self.holidays)
        return Sessions(self.zone, days, self.spans, holidays, self.night_before_holiday)


def _check_not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


class GatewaySchedule(Schedule):
    """Schedule for all probes of a gateway, in ``defaults`` or in the gateway itself."""

    dwell: Duration | None = None
    """Minimum time in a status before a better one is published; a worse one is published immediately."""
    flapping: FlappingSettings | None = None


class GatewaySettings(GatewaySchedule):
    """Gateway in the file."""

    id: Id
    type: Id
    group: Annotated[str, AfterValidator(_check_not_empty)] | None = None
    labels: dict[str, str] = Field(default={})
    session: str | None = None
    recovery: RecoverySettings | None = None
    probes: Annotated[list[Probe], Field(min_length=1)]

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


class MonitorConfig(Settings):
    """Top level of the file."""

    defaults: GatewaySchedule = GatewaySchedule()
    connectivity: ConnectivitySettings | None = None
    exchanges: dict[str, ExchangeSettings] = Field(default={})
    gateways: Annotated[list[GatewaySettings], Field(min_length=1, max_length=MAX_GATEWAYS)]

    def resolve_gateways(self) -> list[Gateway[ProbeSettings]]:
        """Return the gateways with complete schedules; the innermost setting of each value applies."""
        return [self._resolve_gateway(gateway) for gateway in self.gateways]

    def connectivity_checks(self) -> list[Check[ProbeSettings]]:
        """Return the checks of the monitor's own connectivity; empty if the file has none."""
        if self.connectivity is None:
            return []
        return [_check(probe, self.connectivity, self.defaults) for probe in self.connectivity.probes]

    def _resolve_gateway(self, gateway: GatewaySettings) -> Gateway[ProbeSettings]:
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
