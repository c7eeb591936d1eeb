"""Probe ``freshness``: a passive probe, for which the gateway's own messages are the sign of life."""

import asyncio
from typing import Literal

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import failed
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Pattern, PositiveDuration


class FreshnessProbe(ProbeSettings):
    """Maximum age of the last message on a NATS subject."""

    target = "subject"
    kind: Literal["freshness"]
    subject: Pattern
    """Subject pattern, without the deployment's prefix."""
    within: PositiveDuration = 10.0

    @property
    def pattern(self) -> str:
        return self.subject

    async def probe(self, time_limit: float, context: ProbeContext) -> Result | None:
        measured = context.freshness.age(self.subject, asyncio.get_running_loop().time())
        if measured is None:
            return None
        age, received = measured
        if age <= self.within:
            return Result(Outcome.OK) if received else None
        if not received:
            return failed(f"no message in {age:.0f} s; expected one every {self.within:g} s")
        return failed(f"no message for {age:.0f} s; expected one every {self.within:g} s")
