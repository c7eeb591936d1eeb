"""Silences of gateways, stored in WATCHDOG as one message per gateway, where only the monitors read them.

``tickertape monitor silence GATEWAY --for 2h --reason "exchange test"`` starts a silence; ``--end`` ends it.
"""

import getpass
import socket
import time
from itertools import islice
from typing import Any, Final

import orjson
from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts.audit import Silenced, record_subject
from tickertape.contracts.events import format_time, parse_time
from tickertape.contracts.silences import MAX_SILENCE_TEXT, encode_silence, silence_subject
from tickertape.producers.monitor.coordination.stored_status import read_stored_statuses
from tickertape.producers.monitor.gateway.model import Silence

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.errors import PermissionDenied
from tickertape.nats.streams import StreamsError
from tickertape.text import printable

MAX_SILENCES: Final = 10_000
"""Silences that are remembered; beyond that the one that was set first is forgotten."""

PREFIX: Final = "watchdog.silenced."
PATTERN: Final = PREFIX + ">"
"""Subjects of all silences, without the deployment's prefix."""


def status_subject(subject: str) -> str:
    """Return the status subject of the gateway that a silence subject belongs to."""
    return "gateway.status." + subject.removeprefix("watchdog.silenced.")


def encode(silence: Silence) -> bytes:
    """Encode a silence as JSON."""
    return encode_silence(silence.until, silence.reason, silence.by)


def decode(payload: bytes) -> Silence | None:
    """Decode a silence; return None if the payload is not one, since any client may publish here."""
    try:
        body: Any = orjson.loads(payload)
        until = parse_time(body["until"]).timestamp()
        return Silence(
            until,
            printable(str(body.get("reason", "")))[:MAX_SILENCE_TEXT],
            printable(str(body.get("by", "")))[:MAX_SILENCE_TEXT],
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


async def read(client: Client, names: Names) -> dict[str, Silence]:
    """Read the stored silences, up to ``MAX_SILENCES``, by the status subject of their gateway.

    Raises:
        StreamsError: JetStream does not reply, or has no WATCHDOG.
        NatsError: the connection to NATS was lost.
    """
    stream = names.stream("WATCHDOG")
    found: dict[str, Silence] = {}
    stored = await direct_get.list_subjects(client, stream, names.subject(PATTERN))
    for subject in islice(stored, MAX_SILENCES):
        message = await direct_get.get_last_message(client, stream, subject)
        silence = decode(message.data) if message is not None else None
        if silence is not None:
            found[status_subject(names.strip_prefix(subject))] = silence
    return found


async def set_silence(
    client: Client, names: Names, gateway: str, seconds: float, reason: str, *, audit: bool = False
) -> str:
    """Silence a gateway, or end its silence.

    Args:
        client: connected NATS client.
        names: subject and stream names of the deployment.
        gateway: id of the gateway, or ``type/id`` if the id is not unique.
        seconds: duration from now; 0 ends a silence.
        reason: text that events and the dashboard show, for which ``find_reason_error`` returns None.
        audit: whether to record the silence in the stream AUDIT first; without a record, there is no silence.

    Returns:
        a line for the operator that describes the new state.

    Raises:
        StreamsError: the gateway is unknown or ambiguous, or JetStream rejects the silence.
        NatsError: the connection to NATS was lost.
    """
    gateway_type, slash, gateway_id = gateway.partition("/")
    statuses = await read_stored_statuses(client, names)
    matches = [
        status
        for status in statuses.values()
        if (status.gateway_id == gateway)
        or (slash and (status.gateway_type, status.gateway_id) == (gateway_type, gateway_id))
    ]
    if len(matches) != 1:
        candidates = ", ".join(f"{status.gateway_type}/{status.gateway_id}" for status in matches)
        raise StreamsError(
            f"gateway {gateway!r} is {'not unique' if matches else 'unknown'}",
            f"use one of {candidates}"
            if matches
            else "check its id on the dashboard or in the monitor's file",
        )
    match = matches[0]
    try:
        by = getpass.getuser()
    # In a container, the user may have no name.
    except (KeyError, OSError):
        by = "unknown"
    silence = Silence(time.time() + seconds, reason, printable(by)[:MAX_SILENCE_TEXT])
    if audit:
        await _record(client, names, f"{match.gateway_type}/{match.gateway_id}", silence, ended=seconds <= 0)
    await client.jetstream().publish(
        names.subject(silence_subject(match.gateway_type, match.gateway_id)), encode(silence), timeout=5.0
    )
    if seconds <= 0:
        return f"{match.gateway_type}/{match.gateway_id} is no longer silenced"
    return f"{match.gateway_type}/{match.gateway_id} is silenced until {format_time(silence.until)}"


async def _record(client: Client, names: Names, gateway: str, silence: Silence, *, ended: bool) -> None:
    record = Silenced(
        timestamp=format_time(time.time()),
        source=socket.gethostname(),
        gateway=gateway,
        by=silence.by,
        reason=silence.reason,
        until=None if ended else format_time(silence.until),
    )
    headers = {"Nats-Expected-Stream": names.stream("AUDIT")}
    try:
        await client.jetstream().publish(
            names.subject(record_subject(record)), record.encode(), timeout=5.0, headers=headers
        )
    except PermissionDenied:
        raise
    except (NatsError, TimeoutError) as error:
        raise StreamsError(
            f"the silence cannot be recorded in the stream AUDIT: {error or 'no answer'}",
            "create it with 'tickertape streams apply --audit'",
        ) from None
