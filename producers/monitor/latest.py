"""The newest status of each gateway: a monitor's memory over a restart.

LATEST keeps it for ever, but follows EVENTS at a distance: milliseconds, or many seconds after a restart
of the server. So what EVENTS still has goes first.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final

import orjson
from nats.aio.client import Client

from contracts import streams
from contracts.events import GatewayStatusChange, Rejected, Status, decode
from contracts.streams import Names, StreamsError

_TIMEOUT: Final = 5.0
_AT_ONCE: Final = 64


@dataclass(frozen=True, slots=True)
class Newest:
    """What the newest event says of a gateway.

    Attributes:
        since: when that status began, as the event says.
        monitor: name of the monitor that wrote it; None for another producer.
        probes: status of each probe by its name; empty for another producer.
    """

    gateway_type: str
    gateway_id: str
    status: Status
    since: str
    monitor: str | None
    probes: dict[str, str]


async def newest_statuses(client: Client, names: Names) -> dict[str, Newest]:
    """Read the newest status of every gateway, by subject without the deployment's prefix.

    Raises:
        StreamsError: JetStream does not answer.
        NatsError: NATS went away.
    """
    found: dict[str, Newest] = {}
    for stream in (names.stream("LATEST"), names.stream("EVENTS")):
        subjects = await _subjects(client, stream, names.subject("gateway.status.>"))
        for start in range(0, len(subjects), _AT_ONCE):
            some = subjects[start : start + _AT_ONCE]
            bodies = await asyncio.gather(*(_last(client, stream, subject) for subject in some))
            for subject, body in zip(some, bodies, strict=True):
                status = _status(names.bare(subject), body) if body is not None else None
                if status is not None:
                    found[names.bare(subject)] = status
    return found


async def _subjects(client: Client, stream: str, pattern: str) -> list[str]:
    """Subjects of a stream; the server lists them in pages."""
    subjects: list[str] = []
    while True:
        request = {"subjects_filter": pattern, "offset": len(subjects)}
        answer = await streams.request(client, f"STREAM.INFO.{stream}", request)
        if "error" in answer:
            description = answer["error"].get("description")
            raise StreamsError(f"stream {stream} cannot be read: {description}", "look at the server's log")
        page = answer["state"].get("subjects") or {}
        subjects.extend(page)
        if not page or len(subjects) >= answer.get("total", 0):
            return subjects


async def _last(client: Client, stream: str, subject: str) -> bytes | None:
    reply = await client.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"", timeout=_TIMEOUT)
    if reply.headers and reply.headers.get("Status"):
        return None  # it went between the two questions
    return bytes(reply.data)


def _status(subject: str, payload: bytes) -> Newest | None:
    """Read an event; None for one that breaks the contract, which anyone can put on the stream."""
    if isinstance(decode(subject, payload), Rejected):
        return None
    body: dict[str, Any] = orjson.loads(payload)
    if body.get("event_type") != "gateway_status_change":
        return None
    event = GatewayStatusChange.model_validate(body)
    monitor, probes, since = (event.metadata.get(name) for name in ("monitor", "probes", "since"))
    return Newest(
        event.gateway_type,
        event.gateway_id,
        event.current_status,
        since if isinstance(since, str) else event.timestamp,
        monitor if isinstance(monitor, str) else None,
        {str(name): str(status) for name, status in probes.items()} if isinstance(probes, dict) else {},
    )
