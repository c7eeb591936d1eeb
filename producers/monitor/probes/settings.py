"""Base classes of probe settings: the schedule, the name, and the interface of a kind of probe.

A probe's ``name`` identifies it in events, logs and metrics: it is unique within a gateway and never contains
a secret.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.types import (
    Address,
    Count,
    PositiveDuration,
    Settings,
    check_name,
    parse_address,
)


class Schedule(Settings):
    """Probe schedule and thresholds; None inherits the value of the enclosing level."""

    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None
    unhealthy_after: Count | None = None
    healthy_after: Count | None = None


class ProbeSettings(Schedule):
    """Probe in the monitor's file; each kind is a subclass with its own ``kind``."""

    target: ClassVar[str]
    """Name of the setting that holds the target."""

    kind: str
    label: Annotated[str, Field(min_length=1, max_length=80), AfterValidator(check_name)] | None = None
    """Name to use instead of kind and target."""

    @property
    def name(self) -> str:
        """Name of this probe in events, logs and metrics."""
        if self.label is not None:
            return self.label
        target = getattr(self, self.target)
        return f"{self.kind} {target[0] if isinstance(target, list) else target}"

    @property
    def host(self) -> str | None:
        """Host name in the target, which must resolve; None if the target has no host."""
        return None

    @property
    def listens_to(self) -> tuple[str, float] | None:
        """Subject pattern, without the deployment's prefix, and maximum age in seconds of needed messages."""
        return None

    @property
    def exclusive(self) -> frozenset[str]:
        """Names of what no other probe may use."""
        return frozenset()

    def unusable_reason(self) -> str | None:
        """Return why this machine cannot use the target, or None; this check does not probe the target."""
        return None

    @property
    def warning(self) -> str | None:
        """Risk that these settings accept, and how to avoid it after a semicolon; None without one."""
        return None

    def schedule_warning(self, interval: float) -> str | None:
        """Return why these settings do not fit an interval in seconds; None if they do."""
        return None

    @abstractmethod
    async def probe(self, time_limit: float, context: ProbeContext) -> Result | None:
        """Run the probe once.

        Args:
            time_limit: seconds for connecting and answering.
            context: state that probes keep between runs.

        Returns:
            the result; None if the probe is inconclusive.

        Raises:
            TimeoutError: the probe timed out.
            OSError: the connection or TLS failed.
            CannotProbe: the settings cannot be used on this machine.
        """


class AddressProbe(ProbeSettings):
    """Probe that connects to ``host:port``."""

    target = "address"
    address: Address
    degraded_above: PositiveDuration | None = None

    @property
    def endpoint(self) -> tuple[str, int]:
        """Host and port."""
        return parse_address(self.address)

    @property
    def host(self) -> str:
        return self.endpoint[0]


class UrlProbe(ProbeSettings):
    """Probe that connects to a ``url``; its kind defines the schemes."""

    target = "url"
    url: str
    degraded_above: PositiveDuration | None = None

    @property
    def host(self) -> str | None:
        return urlsplit(self.url).hostname
