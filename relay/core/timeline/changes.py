"""Changes of gateways, read from the messages of the stream HISTORY.

``read_change`` accepts what ``contracts.decode`` accepts, at a fifth of its cost: a relay reads hundreds of
thousands of messages when it starts.
"""

from typing import Any, Final, NamedTuple

import orjson
from tickertape.contracts import strict_json
from tickertape.contracts.decode import parse_subject
from tickertape.contracts.events import (
    MAX_EVENT_BYTES,
    MAX_EVENT_DEPTH,
    Status,
    parse_time,
    parse_unix_seconds,
)
from tickertape.contracts.subjects import SubjectError, find_subject_error

STATUSES: Final = tuple(Status)
"""Statuses by their code."""

PHASES: Final = ("started", "attempt", "succeeded", "failed")
"""Phases of a recovery by their code."""

MAX_TEXT: Final = 200
"""Maximum characters of an error, a reason or a user name that are kept."""

STATUS_PREFIX: Final = "gateway.status."
RECOVERY_PREFIX: Final = "gateway.recovery."

_CODES: Final = {str(status): code for code, status in enumerate(STATUSES)}
_PHASE_CODES: Final = {phase: code for code, phase in enumerate(PHASES)}


class GatewayKey(NamedTuple):
    """Gateway.

    Attributes:
        type: type of the gateway.
        id: id of the gateway.
    """

    type: str
    id: str


class Silenced(NamedTuple):
    """Silence in a status event.

    Attributes:
        until: end of the silence, UNIX milliseconds.
        reason: reason that the operator gave.
        by: user who set it.
    """

    until: int
    reason: str
    by: str


class StatusChange(NamedTuple):
    """Status of a gateway from a time on.

    Attributes:
        time: UNIX milliseconds.
        code: index in ``STATUSES``.
        text: error or reason; empty for none.
        is_error: whether the text is an error of a probe.
        silenced: silence that was in effect; None for none.
    """

    time: int
    code: int
    text: str
    is_error: bool
    silenced: Silenced | None


class RecoveryStep(NamedTuple):
    """Step of a recovery.

    Attributes:
        time: UNIX milliseconds.
        phase: index in ``PHASES``.
        attempt: number of the attempt.
    """

    time: int
    phase: int
    attempt: int


def read_gateway(subject: str) -> GatewayKey | None:
    """Return the gateway of a subject without the deployment's prefix; None if it has none."""
    if find_subject_error(subject) is not None:
        return None
    try:
        fields = parse_subject(subject).fields
    except SubjectError:
        return None
    gateway_type, gateway_id = fields.get("gateway_type"), fields.get("gateway_id")
    return None if gateway_type is None or gateway_id is None else GatewayKey(gateway_type, gateway_id)


def read_change(subject: str, gateway: GatewayKey, payload: bytes) -> StatusChange | RecoveryStep | None:
    """Read a status or recovery event; return None if it violates the contract.

    Args:
        subject: subject of the event, of which only the kind counts.
        gateway: gateway in the subject.
        payload: payload of the message.
    """
    if len(payload) > MAX_EVENT_BYTES:
        return None
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return None
    if (
        type(body) is not dict
        or strict_json.is_deeper(payload, MAX_EVENT_DEPTH)
        or strict_json.find_duplicate_key(payload, body) is not None
        or (body.get("gateway_type"), body.get("gateway_id")) != gateway
        or type(metadata := body.get("metadata", {})) is not dict
        or type(timestamp := body.get("timestamp")) is not str
    ):
        return None
    try:
        # Not ``parse_unix_seconds``: the times of a history do not recur, and its cache takes half the time.
        time = round(parse_time(timestamp).timestamp() * 1000)
    except (ValueError, OverflowError):
        return None
    if subject.startswith(STATUS_PREFIX):
        return _read_status(body, metadata, time)
    return _read_step(body, time)


def _read_status(body: dict[str, Any], metadata: dict[str, Any], time: int) -> StatusChange | None:
    current, previous = body.get("current_status"), body.get("previous_status")
    if body.get("event_type") != "gateway_status_change" or type(current) is not str:
        return None
    code = _CODES.get(current)
    if code is None or type(previous) is not str or previous not in _CODES:
        return None
    error, reason = metadata.get("error"), metadata.get("reason")
    is_error = type(error) is str and error != ""
    text = error if is_error else reason if type(reason) is str else ""
    return StatusChange(time, code, str(text)[:MAX_TEXT], is_error, _read_silence(metadata.get("silenced")))


def _read_silence(value: object) -> Silenced | None:
    if type(value) is not dict or type(until := value.get("until")) is not str:
        return None
    try:
        end = round(parse_unix_seconds(until) * 1000)
    except (ValueError, OverflowError):
        return None
    reason, by = (str(value.get(key) or "")[:MAX_TEXT] for key in ("reason", "by"))
    return Silenced(end, reason, by)


def _read_step(body: dict[str, Any], time: int) -> RecoveryStep | None:
    phase, attempt = body.get("phase"), body.get("attempt")
    if body.get("event_type") != "gateway_recovery" or type(phase) is not str or phase not in _PHASE_CODES:
        return None
    if type(attempt) is not int or attempt < 0:
        return None
    return RecoveryStep(time, _PHASE_CODES[phase], attempt)
