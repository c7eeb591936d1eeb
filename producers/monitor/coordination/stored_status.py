"""The newest status of each gateway: a monitor's memory over a restart.

LATEST keeps it for ever, but follows EVENTS at a distance: milliseconds, or many seconds after a restart
of the server. So what EVENTS still has goes first.
"""

import asyncio
from dataclasses import replace
from typing import Any, Final, TypeGuard

import orjson
from nats.aio.client import Client
from tickertape.contracts.decode import decode
from tickertape.contracts.events import GatewayStatusChange, Rejection, parse_time
from tickertape.producers.monitor.gateway.model import Newest

from tickertape.names import Names
from tickertape.nats import direct_get

_AT_ONCE: Final = 64


async def newest_statuses(client: Client, names: Names) -> dict[str, Newest]:
    """Read the newest status of every gateway, by subject without the deployment's prefix.

    Raises:
        StreamsError: JetStream does not answer.
        NatsError: NATS went away.
    """
    found: dict[str, Newest] = {}
    events = names.stream("EVENTS")
    for stream in (names.stream("LATEST"), events):
        subjects = await direct_get.list_subjects(client, stream, names.subject("gateway.status.>"))
        for start in range(0, len(subjects), _AT_ONCE):
            some = subjects[start : start + _AT_ONCE]
            answers = await asyncio.gather(
                *(direct_get.get_last_message(client, stream, subject) for subject in some)
            )
            for subject, answer in zip(some, answers, strict=True):
                if answer is None:
                    continue
                sequence = answer.seq if stream == events else 0
                status = status_of(names.strip_prefix(subject), answer.data, sequence)
                if status is not None:
                    found[names.strip_prefix(subject)] = status
                elif sequence and names.strip_prefix(subject) in found:
                    # What cannot be read still counts when the next event names the one before.
                    found[names.strip_prefix(subject)] = replace(
                        found[names.strip_prefix(subject)], sequence=sequence
                    )
    return found


def status_of(subject: str, payload: bytes, sequence: int) -> Newest | None:
    """Read an event; None for one that breaks the contract, which anyone can put on the stream."""
    if isinstance(decode(subject, payload), Rejection):
        return None
    body: dict[str, Any] = orjson.loads(payload)
    if body.get("event_type") != "gateway_status_change":
        return None
    event = GatewayStatusChange.model_validate(body)
    names = ("monitor", "probes", "since", "reason")
    monitor, probes, since, reason = (event.metadata.get(name) for name in names)
    return Newest(
        event.gateway_type,
        event.gateway_id,
        event.current_status,
        since if _is_time(since) else event.timestamp,
        monitor if isinstance(monitor, str) else None,
        {str(name): str(status) for name, status in probes.items()} if isinstance(probes, dict) else {},
        reason if isinstance(reason, str) else None,
        sequence,
        event.metadata.get("flapping") is True,
        isinstance(event.metadata.get("silenced"), dict),
    )


def _is_time(value: object) -> TypeGuard[str]:
    """Tell whether a field that any producer may have written is an RFC 3339 time."""
    try:
        return isinstance(value, str) and bool(parse_time(value))
    except ValueError:
        return False


def author(payload: bytes) -> str | None:
    """Name of the monitor that wrote an event; None for another producer."""
    try:
        name = orjson.loads(payload)["metadata"]["monitor"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None
