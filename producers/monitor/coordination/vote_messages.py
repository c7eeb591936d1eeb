"""Leases and votes of monitors as messages in WATCHDOG, which any client with the permission may publish."""

from typing import Any, Final

import orjson
from tickertape.contracts import subjects
from tickertape.contracts.events import Status, format_time, parse_time
from tickertape.producers.monitor.coordination.stored_status import MAX_REASON_LENGTH
from tickertape.producers.monitor.gateway.majority import View, Vote

LEASES: Final = "watchdog.monitor.>"
"""Subjects of the leases, without the deployment's prefix."""

VOTES: Final = "watchdog.vote.>"
"""Subjects of the votes, without the deployment's prefix."""

MAX_PROBES: Final = 100
"""Probes of a gateway whose status a vote repeats."""

_VOTE_TOKENS: Final = 5


def lease_subject(monitor: str) -> str:
    """Return the subject of a monitor's lease, without the deployment's prefix."""
    return f"watchdog.monitor.{subjects.escape(monitor)}"


def vote_subject(status_subject: str, monitor: str) -> str:
    """Return the subject of a monitor's vote on the gateway with a status subject."""
    gateway = status_subject.removeprefix("gateway.status.")
    return f"watchdog.vote.{gateway}.{subjects.escape(monitor)}"


def parse_lease_subject(subject: str) -> str | None:
    """Return the id of the monitor; None if it is not the subject of a lease."""
    return _unescape(subject.removeprefix("watchdog.monitor."))


def parse_vote_subject(subject: str) -> tuple[str, str] | None:
    """Return the status subject of the gateway and the id of the monitor; None for another subject."""
    tokens = subject.split(".")
    monitor = _unescape(tokens[-1])
    if len(tokens) != _VOTE_TOKENS or monitor is None:
        return None
    return f"gateway.status.{tokens[2]}.{tokens[3]}", monitor


def encode_lease(instance: str, *, released: bool = False) -> bytes:
    """Encode a lease, or its release."""
    return orjson.dumps({"instance": instance, **({"released": True} if released else {})})


def decode_lease(payload: bytes) -> tuple[str, bool] | None:
    """Decode a lease: the instance that holds it, and whether it is released; None if it is invalid."""
    body = _load(payload)
    instance = body.get("instance")
    return (instance, body.get("released") is True) if isinstance(instance, str) else None


def encode_vote(instance: str, view: View) -> bytes:
    """Encode a vote."""
    return orjson.dumps(
        {"instance": instance, "status": view.status, "since": view.since, "details": view.details}
    )


def decode_vote(payload: bytes, sequence: int) -> Vote | None:
    """Decode a vote; None if it is withdrawn or invalid."""
    body = _load(payload)
    instance, since = body.get("instance"), body.get("since")
    try:
        status = Status(str(body.get("status")))
        begun = format_time(parse_time(since).timestamp()) if isinstance(since, str) else None
    except (ValueError, OverflowError):
        return None
    if not isinstance(instance, str) or begun is None or status is Status.REMOVED:
        return None
    return Vote(instance, View(status, begun, _decode_details(body.get("details"))), sequence)


def _decode_details(body: Any) -> dict[str, Any]:
    """Return the known details in the form of an event's metadata."""
    if not isinstance(body, dict):
        return {}
    details: dict[str, Any] = {}
    probes = body.get("probes")
    if isinstance(probes, dict):
        items = list(probes.items())[:MAX_PROBES]
        details["probes"] = {
            str(name)[:MAX_REASON_LENGTH]: str(status)[:MAX_REASON_LENGTH] for name, status in items
        }
    for key in ("probe", "error"):
        if isinstance(body.get(key), str):
            details[key] = body[key][:MAX_REASON_LENGTH]
    if type(body.get("latency_ms")) in (int, float):
        details["latency_ms"] = body["latency_ms"]
    return details


def _load(payload: bytes) -> dict[str, Any]:
    try:
        body = orjson.loads(payload)
    except orjson.JSONDecodeError:
        return {}
    return body if isinstance(body, dict) else {}


def _unescape(token: str) -> str | None:
    try:
        return subjects.unescape(token)
    except ValueError:
        return None
