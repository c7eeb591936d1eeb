"""What the settings of all kinds of probes share: a schedule, a name, and what a kind has to say of itself.

A probe's ``name`` is what events, logs and metrics call it: it tells probes of one gateway apart, and never
holds a secret.
"""

from abc import abstractmethod
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import Field
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.types import Address, Count, PositiveDuration, Settings, parse_address


class Schedule(Settings):
    """When to probe, and what to make of it; None is taken from the next level up."""

    interval: PositiveDuration | None = None
    timeout: PositiveDuration | None = None
    unhealthy_after: Count | None = None
    healthy_after: Count | None = None


class ProbeSettings(Schedule):
    """A probe as it stands in the monitor's file; each kind is a subclass with its own ``kind``."""

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

    @property
    def host(self) -> str | None:
        """Host that its target names, and that has to resolve; None when it names none."""
        return None

    @property
    def pattern(self) -> str | None:
        """Pattern of subjects that are to be listened to for it, without the deployment's prefix."""
        return None

    def unusable(self) -> str | None:
        """Say why its target cannot be used on this machine; None when it can, as far as is seen here."""
        return None

    @abstractmethod
    async def probe(self, limit: float, context: ProbeContext) -> Result | None:
        """Probe once.

        Args:
            limit: seconds for connecting and answering.
            context: what probes remember from one look to the next.

        Returns:
            what was found; None when there is nothing to judge by.

        Raises:
            TimeoutError: the limit is over.
            OSError: the connection, or TLS, failed.
        """


class AddressProbe(ProbeSettings):
    """A probe that connects to ``host:port``."""

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
    """A probe that connects to a ``url``, whose schemes its kind says."""

    target = "url"
    url: str
    degraded_above: PositiveDuration | None = None

    @property
    def host(self) -> str | None:
        return urlsplit(self.url).hostname
