"""Events of other programs that a monitor adopts: none of them stops it, or makes its own events invalid."""

from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st
from tickertape.contracts.decode import decode
from tickertape.contracts.events import MAX_EVENT_BYTES, Rejection, Status
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.coordination.stored_status import parse_stored_status
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result

from tests.support.json_values import VALUES
from tests.unit.producers.monitor.gateway.test_state import decide, make_state, record

SUBJECT = "gateway.status.ctp.main"
KEYS = ("monitor", "probes", "since", "reason", "flapping", "silenced")
METADATA = st.fixed_dictionaries({}, optional={
    **dict.fromkeys(KEYS, VALUES),
    "probes": st.dictionaries(st.just("tcp") | st.text(max_size=2), VALUES | st.sampled_from(list(Status))),
})  # fmt: skip
SILENCES = st.fixed_dictionaries({}, optional=dict.fromkeys(("until", "reason", "by"), VALUES)) | VALUES
LONG = "x" * (MAX_EVENT_BYTES - 400)
NOW = 1_750_000_000.0


@given(METADATA, st.sampled_from(list(Status)), SILENCES)
@example({"reason": LONG}, Status.UNHEALTHY, {"until": "9999-12-31T23:59:59-23:59", "reason": LONG})
@example({"reason": "monitor_silent", "probes": {"tcp": LONG}}, Status.UNKNOWN, {})
@example({"monitor": LONG}, Status.DEGRADED, {"until": "2100-01-01T00:00:00Z", "by": [LONG]})
def test_whatever_is_adopted_the_next_events_are_valid(
    metadata: dict[str, Any], status: Status, silence: Any
) -> None:
    """After any event and silence that other programs published, a monitor's own events are valid."""
    payload = orjson.dumps({
        "event_type": "gateway_status_change", "timestamp": "2025-01-01T00:00:00Z", "gateway_id": "main",
        "gateway_type": "ctp", "previous_status": "UNKNOWN", "current_status": status, "metadata": metadata,
    })  # fmt: skip
    stored = parse_stored_status(SUBJECT, payload, 1)
    assert stored is not None
    for state in (make_state(stored), make_state()):
        events = [decide(state, NOW)]
        state.adopt(stored, NOW)
        events.append(decide(state, NOW))
        state.set_silence(silences.decode(orjson.dumps(silence)), NOW)
        events.append(decide(state, NOW))
        for result in (Result(Outcome.FAILED, "refused"), Result(Outcome.OK, None, 0.1)):
            events += [record(state, 0, result, NOW + second) for second in range(200, 210)]
        for event in events:
            if event is not None:
                answer = decode(event.subject, event.encode())
                assert not isinstance(answer, Rejection), answer
