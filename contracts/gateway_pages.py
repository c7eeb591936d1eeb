"""Pages about gateways over HTTP, as pydantic models: lists, histories, incidents, and states at a time.

JSON Schema and TypeScript types are generated from them. The relay assembles the pages itself, since they can
have thousands of entries; tests compare the two.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict
from tickertape.contracts.events import Status, Timestamp


class Page(BaseModel):
    """Page, or a part of one. Ignore unknown fields; later versions may add them."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, use_attribute_docstrings=True)


class Availability(Page):
    """Time of each kind in a range, in seconds."""

    availability: float | None
    """Share of ``up_s`` in ``up_s`` and ``down_s``, 0 to 1; null if both are 0."""
    up_s: float
    """HEALTHY or DEGRADED."""
    down_s: float
    """UNHEALTHY or RECOVERING, and not silenced."""
    planned_s: float
    """OFF_SESSION, or UNHEALTHY or RECOVERING while silenced."""
    unknown_s: float
    """UNKNOWN, not monitored, or before the first status."""
    incidents: int
    """Number of incidents in which the gateway was down and not silenced."""


class GatewaySilence(Page):
    """Silence of a gateway; without fields if its details are no longer known."""

    until: Timestamp | None = None
    """End of the silence."""
    reason: str | None = None
    """Reason that the user gave."""
    by: str | None = None
    """User who silenced the gateway."""


class GatewayState(Page):
    """State of a gateway at a time."""

    gateway_type: str
    """Type of the gateway."""
    gateway_id: str
    """Id of the gateway."""
    since: Timestamp
    """Time since which it has this status."""
    status: Status
    """Status of the gateway."""
    error: str | None = None
    """Error of the probe that failed."""
    reason: str | None = None
    """Reason for the status, without an error."""
    silenced: GatewaySilence | None = None
    """Silence that is in effect."""


class MeasuredGateway(GatewayState):
    """Gateway with its availability."""

    availability: dict[str, Availability]
    """Availability over ``24h``, ``7d``, ``30d`` and ``90d``; for a query with ``since``, over ``range``."""
    truncated: bool
    """Whether statuses of these ranges were dropped, because the gateway has too many."""


class GatewaysPage(Page):
    """Page of ``GET /gateways``."""

    since: Timestamp | None = None
    """Start of the range, for a query with ``since``."""
    until: Timestamp
    """End of all ranges."""
    gateways: list[MeasuredGateway]
    """Gateways by type and id."""
    more: bool
    """Whether further gateways follow."""
    next: str | None = None
    """Value of ``after`` for the next page, if ``more``."""


class StatePage(Page):
    """Page of ``GET /state``."""

    at: Timestamp
    """Time of the states."""
    gateways: list[GatewayState]
    """Gateways by type and id."""
    more: bool
    """Whether further gateways follow."""
    next: str | None = None
    """Value of ``after`` for the next page, if ``more``."""
    truncated: bool
    """Whether a gateway is missing, because its status at that time was dropped."""


class StatusEntry(Page):
    """Status of a gateway from a time on."""

    timestamp: Timestamp
    """Time since which the gateway has this status."""
    status: Status
    """Status of the gateway."""
    error: str | None = None
    """Error of the probe that failed."""
    reason: str | None = None
    """Reason for the status, without an error."""
    silenced: GatewaySilence | None = None
    """Silence that was in effect."""


class RecoveryEntry(Page):
    """Step of a recovery."""

    timestamp: Timestamp
    """Time of the step."""
    phase: Literal["started", "attempt", "succeeded", "failed"]
    """Phase that began."""
    attempt: int
    """Number of the attempt."""


class GatewayHistoryPage(Page):
    """Page of ``GET /gateways/{type}/{id}/history``."""

    gateway_type: str
    """Type of the gateway."""
    gateway_id: str
    """Id of the gateway."""
    since: Timestamp
    """Start of the range."""
    until: Timestamp
    """End of the range."""
    availability: dict[str, Availability]
    """Availability over the ``range``."""
    statuses: list[StatusEntry]
    """Statuses in order, from the one that was in effect at ``since``."""
    recoveries: list[RecoveryEntry] | None = None
    """Steps of recoveries in order; absent if the token does not grant them."""
    more: bool
    """Whether the range has more statuses than ``limit``."""
    truncated: bool
    """Whether statuses or steps of the range were dropped, because the gateway has too many."""


class IncidentRecovery(Page):
    """Recovery of an incident."""

    phase: Literal["started", "attempt", "succeeded", "failed"]
    """Last phase."""
    attempts: int
    """Number of attempts."""


class Incident(Page):
    """Time in which a gateway was unavailable."""

    gateway_type: str
    """Type of the gateway."""
    gateway_id: str
    """Id of the gateway."""
    start: Timestamp
    """Time at which it became unavailable."""
    end: Timestamp | None
    """Time at which it was available, OFF_SESSION or removed; null while the incident continues."""
    duration_s: float
    """Seconds from ``start`` to ``end``, or to the end of the range."""
    down_s: float
    """Seconds in which it was down and not silenced."""
    planned_s: float
    """Seconds in which it was down and silenced."""
    planned: bool
    """Whether it was silenced whenever it was down."""
    error: str | None = None
    """First error, or else the first reason."""
    recovery: IncidentRecovery | None = None
    """Recovery; absent without one, and if the token does not grant it."""


class IncidentsPage(Page):
    """Page of ``GET /incidents``."""

    since: Timestamp
    """Start of the range."""
    until: Timestamp
    """End of the range."""
    incidents: list[Incident]
    """Incidents that overlap the range, newest first."""
    count: int
    """Number of all incidents in the range."""
    more: bool
    """Whether there are more than ``limit``."""
    truncated: bool
    """Whether incidents may be missing, because statuses of a gateway were dropped."""


class SilenceResult(Page):
    """Response to ``POST`` and ``DELETE /gateways/{type}/{id}/silence``."""

    gateway_type: str
    """Type of the gateway."""
    gateway_id: str
    """Id of the gateway."""
    until: Timestamp
    """End of the silence."""
    reason: str
    """Reason of the request; empty if it ends a silence."""
    by: str
    """Subject of the token."""


PAGES = (GatewaysPage, GatewayHistoryPage, IncidentsPage, StatePage, SilenceResult)
"""Models of all responses."""
