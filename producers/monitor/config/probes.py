"""The probes as they stand in the monitor's file, one model for each kind.

A probe's ``name`` is what events, logs and metrics call it: it tells probes of one gateway apart, and never
holds a secret.
"""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from tickertape.producers.monitor.config.types import (
    Address,
    Command,
    Count,
    Duration,
    HttpUrl,
    Pattern,
    PositiveDuration,
    Settings,
    WebSocketUrl,
)


class Schedule(Settings):
    """When to probe, and what to make of it; None is taken from the next level up."""

    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None
    unhealthy_after: Count | None = None
    healthy_after: Count | None = None


class _Probe(Schedule):
    target: ClassVar[str]
    """Name of the setting that says where it looks."""

    kind: str
    label: Annotated[str, Field(min_length=1, max_length=80)] | None = None
    """Another name than that of what it looks at."""

    @property
    def name(self) -> str:
        """What events, logs and metrics call this probe."""
        if self.label is not None:
            return self.label
        at = getattr(self, self.target)
        return f"{self.kind} {at[0] if isinstance(at, list) else at}"


class TcpProbe(_Probe):
    """Connects, then must stay connected for ``hold`` without the peer closing."""

    target = "address"
    kind: Literal["tcp"]
    address: Address
    hold: Duration = 0.0
    degraded_above: PositiveDuration | None = None


class TlsProbe(_Probe):
    """Shakes hands and looks at the certificate; one that ends within ``expires_within`` is degraded."""

    target = "address"
    kind: Literal["tls"]
    address: Address
    server_name: str | None = None
    ca: str | None = None
    """File with the authorities to trust; those of the system by default."""
    expires_within: PositiveDuration = 14 * 86_400.0
    degraded_above: PositiveDuration | None = None


Code = Annotated[int, Field(ge=100, le=599, strict=True)]


class HttpProbe(_Probe):
    """Asks for ``url`` and wants ``status``, and what ``body`` and ``json`` say in the answer."""

    target = "url"
    kind: Literal["http"]
    url: HttpUrl
    method: Literal["GET", "HEAD", "POST", "OPTIONS"] = "GET"
    status: Code | Annotated[list[Code], Field(min_length=1)] = 200
    headers: dict[str, str] = Field(default={}, repr=False)
    body: str | None = None
    """Text that the answer's body must hold."""
    json_: dict[str, Any] = Field(default={}, alias="json")
    """Values that the body's JSON must have, by path: ``status`` or ``checks.market_data``."""
    degraded_above: PositiveDuration | None = None

    @property
    def wanted(self) -> tuple[int, ...]:
        """Statuses that are well."""
        return (self.status,) if isinstance(self.status, int) else tuple(self.status)

    @model_validator(mode="after")
    def _body_is_read(self) -> "HttpProbe":
        if self.method == "HEAD" and (self.body is not None or self.json_):
            raise ValueError("an answer to HEAD has no body; use GET, or take 'body' and 'json' out")
        return self


class WebSocketProbe(_Probe):
    """Connects, sends ``send``, and waits for a message that holds ``expect``."""

    target = "url"
    kind: Literal["websocket"]
    url: WebSocketUrl
    subprotocol: str | None = None
    headers: dict[str, str] = Field(default={}, repr=False)
    send: str | None = None
    expect: str | None = None
    degraded_above: PositiveDuration | None = None


class FixProbe(_Probe):
    """Logs on with FIX, asks for a heartbeat and logs out; never more often than the cap of log-ins."""

    target = "address"
    kind: Literal["fix"]
    address: Address
    sender_comp_id: Annotated[str, Field(min_length=1)]
    target_comp_id: Annotated[str, Field(min_length=1)]
    begin_string: Literal["FIX.4.0", "FIX.4.1", "FIX.4.2", "FIX.4.3", "FIX.4.4"] = "FIX.4.4"
    username: str | None = None
    password_env: str | None = None
    """Environment variable that holds the password."""
    password_file: str | None = None
    tls: bool = False
    max_logons_per_hour: Annotated[int, Field(ge=1, le=3600, strict=True)] = 4
    """Accounts are banned for log-ins that fail; past the cap the gateway keeps its status unprobed."""
    degraded_above: PositiveDuration | None = None


class FreshnessProbe(_Probe):
    """Something must have arrived on a NATS subject within the last while: the gateway's own word."""

    target = "subject"
    kind: Literal["freshness"]
    subject: Pattern
    """As in NATS, without the deployment's prefix."""
    within: PositiveDuration = 10.0


class ExecProbe(_Probe):
    """Runs a command: it ends with 0 for healthy, 1 for degraded, 2 for unhealthy."""

    target = "command"
    kind: Literal["exec"]
    command: Command
    environment: dict[str, str] = Field(default={}, repr=False)


Probe = TcpProbe | TlsProbe | HttpProbe | WebSocketProbe | FixProbe | FreshnessProbe | ExecProbe
KINDS = ("tcp", "tls", "http", "websocket", "fix", "freshness", "exec")
