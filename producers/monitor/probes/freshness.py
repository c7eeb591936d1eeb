"""Probe ``freshness``: a passive probe, for which the gateway's own messages are the sign of life."""

import asyncio
from typing import Literal

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CannotProbe, failed
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import Pattern, PositiveDuration


class SubjectProbe(ProbeSettings):
    """Maximum age of the last message on a NATS subject, which must have been listened to for that long."""

    target = "subject"
    subject: Pattern
    """Subject pattern, without the deployment's prefix."""
    within: PositiveDuration = 10.0

    @property
    def listens_to(self) -> tuple[str, float]:
        return self.subject, self.within

    async def probe(self, time_limit: float, context: ProbeContext) -> Result | None:
        result = self._judge(context)
        if result is None or result.outcome is Outcome.OK:
            return result
        return self._judge(context) if await context.freshness.confirm(time_limit) else None

    def _judge(self, context: ProbeContext) -> Result | None:
        freshness, now = context.freshness, asyncio.get_running_loop().time()
        age = freshness.age(self.subject, now)
        if age is not None and age <= self.within:
            return Result(Outcome.OK)
        if (denied := freshness.denied.get(self.subject)) is not None:
            raise CannotProbe(denied.message, denied.hint)
        open_for = now - context.active_since
        silence = freshness.silence(self.subject, now)
        # Outside of a session no message is expected.
        if silence is None or (silence := min(silence, open_for)) <= self.within:
            if open_for > self.within and freshness.was_interrupted(self.subject):
                # The last result is out of date, and must not be published again after the outage.
                raise CannotProbe(
                    "messages may have been missed while NATS was unreachable",
                    "wait for the next one, or until one is overdue",
                )
            return None
        found = f"no message {'in' if age is None else 'for'} {silence:.0f} s"
        return failed(f"{found}; expected one every {self.within:g} s")


class FreshnessProbe(SubjectProbe):
    """Maximum age of the last message, whatever it says."""

    kind: Literal["freshness"]
