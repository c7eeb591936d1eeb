"""Probe ``push``: a heartbeat that a gateway publishes on NATS, and that may report a failure."""

from codecs import BOM_UTF8
from typing import Any, Final, Literal

import orjson
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import MAX_BODY_BYTES, ProbeContext
from tickertape.producers.monitor.probes.freshness import SubjectProbe
from tickertape.producers.monitor.probes.options.patterns import shorten, show
from tickertape.producers.monitor.probes.result import failed
from tickertape.producers.monitor.types import PositiveDuration

_OUTCOMES: Final = {
    "up": Outcome.OK,
    "ok": Outcome.OK,
    "healthy": Outcome.OK,
    "degraded": Outcome.DEGRADED,
    "recovering": Outcome.DEGRADED,
    "unknown": Outcome.UNKNOWN,
    "down": Outcome.FAILED,
    "failed": Outcome.FAILED,
    "unhealthy": Outcome.FAILED,
}
_REASONS: Final = ("reason", "error", "message", "msg")


class PushProbe(SubjectProbe):
    """Heartbeat that must arrive within a deadline; the latest one counts until then.

    A heartbeat may be a JSON object with ``status`` (``up``, ``degraded`` or ``down``) and ``reason``; every
    other message means that the gateway is up, except one that begins like an object and is none.
    """

    kind: Literal["push"]
    within: PositiveDuration = 60.0

    @property
    def listens_to(self) -> tuple[str, float]:
        # Without pauses, because each heartbeat may have another status.
        return self.subject, 0.0

    async def probe(self, time_limit: float, context: ProbeContext) -> Result | None:
        result = await super().probe(time_limit, context)
        if result is None or result.outcome is not Outcome.OK:
            return result
        return parse_heartbeat(context.freshness.last_body(self.subject))


def parse_heartbeat(body: bytes) -> Result:
    """Return the result that a heartbeat reports."""
    try:
        document: Any = orjson.loads(body.removeprefix(BOM_UTF8))
    except orjson.JSONDecodeError:
        start = body.removeprefix(BOM_UTF8).lstrip()
        if not start.startswith(b"{"):
            return Result(Outcome.OK)
        # It may have a status: NaN is not valid in JSON, and a long one is truncated.
        if len(body) >= MAX_BODY_BYTES:
            return failed(f"heartbeat is larger than {MAX_BODY_BYTES} bytes")
        return failed(f"heartbeat is not valid JSON: {show(start.decode(errors='replace'), {})}")
    if not isinstance(document, dict) or document.get("status") is None:
        return Result(Outcome.OK)
    status = document["status"]
    outcome = _OUTCOMES.get(status.lower()) if isinstance(status, str) else None
    if outcome is Outcome.OK:
        return Result(outcome)
    if outcome is None:
        return failed(f"heartbeat has status {show(str(status), {})}, expected up, degraded or down")
    reason = next((text for name in _REASONS if isinstance(text := document.get(name), str) and text), "")
    text = f"heartbeat has status {status}" + (f": {shorten(reason, {})}" if reason else "")
    return Result(outcome, text)
