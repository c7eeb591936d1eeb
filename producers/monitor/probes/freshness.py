"""The ``freshness`` probe: nothing is asked of the gateway; its own messages are the sign of life."""

from tickertape.producers.monitor.config.probes import FreshnessProbe
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import Freshness
from tickertape.producers.monitor.probes.result import failed


def look(probe: FreshnessProbe, board: Freshness, now: float) -> Result | None:
    """Judge by what arrived; None when that cannot be known yet. ``now`` is monotonic, in seconds."""
    known = board.age(probe.subject, now)
    if known is None:
        return None
    age, ever = known
    if age <= probe.within:
        return Result(Outcome.OK) if ever else None
    if not ever:
        return failed(f"nothing arrived within {age:.0f} s; something must every {probe.within:g} s")
    return failed(f"nothing arrived for {age:.0f} s; something must every {probe.within:g} s")
