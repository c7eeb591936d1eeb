"""Latest status of each gateway as stored in NATS, from which a monitor continues after a restart.

LATEST keeps every status without a time limit, but lags behind EVENTS by milliseconds, or by many seconds
after a restart of the server. Therefore a status in EVENTS takes precedence.
"""

import asyncio
from dataclasses import replace
from typing import Any, Final, TypeGuard

import orjson
from nats.aio.client import Client
from tickertape.contracts.decode import decode
from tickertape.contracts.events import GatewayStatusChange, Rejection, parse_time
from tickertape.producers.monitor.gateway.model import StoredStatus

from tickertape.names import Names
from tickertape.nats import direct_get

MAX_REASON_LENGTH: Final = 500
"""Maximum characters of a reason, and of a user name, that the events of this monitor repeat."""

_MAX_SEQUENCE: Final = 2**63
"""Sequences of a stream are smaller."""

_BATCH_SIZE: Final = 64
"""Concurrent direct gets."""


async def read_stored_statuses(client: Client, names: Names) -> dict[str, StoredStatus]:
    """Read the latest status of every gateway, by subject without the deployment's prefix.

    Raises:
        StreamsError: JetStream does not reply.
        NatsError: the connection to NATS was lost.
    """
    found: dict[str, StoredStatus] = {}
    events = names.stream("EVENTS")
    # EVENTS comes last, so that its statuses replace those of LATEST.
    for stream in (names.stream("LATEST"), events):
        subjects = await direct_get.list_subjects(client, stream, names.subject("gateway.status.>"))
        for start in range(0, len(subjects), _BATCH_SIZE):
            batch = subjects[start : start + _BATCH_SIZE]
            messages = await asyncio.gather(
                *(direct_get.get_last_message(client, stream, subject) for subject in batch)
            )
            for subject, message in zip(batch, messages, strict=True):
                if message is None:
                    continue
                sequence = message.seq if stream == events else 0
                bare_subject = names.strip_prefix(subject)
                status = parse_stored_status(bare_subject, message.data, sequence)
                if status is not None:
                    found[bare_subject] = status
                elif sequence and bare_subject in found:
                    # The next event must expect this sequence, although the event on it is invalid.
                    found[bare_subject] = replace(found[bare_subject], sequence=sequence)
    return found


def parse_stored_status(subject: str, payload: bytes, sequence: int) -> StoredStatus | None:
    """Parse a status event; return None if it is invalid, since any client may publish to the stream."""
    if isinstance(decode(subject, payload), Rejection):
        return None
    body: dict[str, Any] = orjson.loads(payload)
    if body.get("event_type") != "gateway_status_change":
        return None
    event = GatewayStatusChange.model_validate(body)
    keys = ("monitor", "probes", "since", "reason")
    monitor, probes, since, reason = (event.metadata.get(key) for key in keys)
    vote_sequence = event.metadata.get("vote_sequence")
    return StoredStatus(
        event.gateway_type,
        event.gateway_id,
        event.current_status,
        since if _is_time(since) else event.timestamp,
        monitor if isinstance(monitor, str) else None,
        {str(name): str(status) for name, status in probes.items()} if isinstance(probes, dict) else {},
        reason[:MAX_REASON_LENGTH] if isinstance(reason, str) else None,
        sequence,
        event.metadata.get("flapping") is True,
        isinstance(event.metadata.get("silenced"), dict),
        vote_sequence if type(vote_sequence) is int and 0 <= vote_sequence < _MAX_SEQUENCE else 0,
        isinstance(event.metadata.get("views"), dict),
    )


def _is_time(value: object) -> TypeGuard[str]:
    """Return whether a metadata value, which any producer may have written, is an RFC 3339 time."""
    try:
        return isinstance(value, str) and bool(parse_time(value))
    except ValueError:
        return False
