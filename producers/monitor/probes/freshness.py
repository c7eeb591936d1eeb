"""The ``freshness`` probe: nothing is asked of the gateway; its own messages are the sign of life."""

import asyncio
from typing import Literal

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import failed
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Pattern, PositiveDuration


class FreshnessProbe(ProbeSettings):
    """Something must have arrived on a NATS subject within the last while: the gateway's own word."""

    target = "subject"
    kind: Literal["freshness"]
    subject: Pattern
    """As in NATS, without the deployment's prefix."""
    within: PositiveDuration = 10.0

    @property
    def pattern(self) -> str:
        return self.subject

    async def probe(self, limit: float, context: ProbeContext) -> Result | None:
        known = context.freshness.age(self.subject, asyncio.get_running_loop().time())
        if known is None:
            return None
        age, ever = known
        if age <= self.within:
            return Result(Outcome.OK) if ever else None
        if not ever:
            return failed(f"nothing arrived within {age:.0f} s; something must every {self.within:g} s")
        return failed(f"nothing arrived for {age:.0f} s; something must every {self.within:g} s")
