"""Silences: kept in WATCHDOG, one message per gateway, so that every monitor and nobody else sees them.

``tickertape monitor silence GATEWAY --for 2h --reason "exchange test"`` writes one; ``--end`` ends it.
"""

import getpass
import time
from typing import Any, Final

import orjson
from nats.aio.client import Client
from tickertape.contracts import subjects
from tickertape.contracts.events import format_time, parse_time
from tickertape.producers.monitor.coordination.stored_status import newest_statuses
from tickertape.producers.monitor.gateway.model import Silence

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.streams import StreamsError

MAX_WHY: Final = 500
"""Characters of a reason."""

PATTERN: Final = "watchdog.silenced.>"


def subject(gateway_type: str, gateway_id: str) -> str:
    """Where the silence of a gateway is kept, without the deployment's prefix."""
    return f"watchdog.silenced.{subjects.escape(gateway_type)}.{subjects.escape(gateway_id)}"


def status_subject(silenced: str) -> str:
    """Subject of the status of the gateway whose silence is on a subject."""
    return "gateway.status." + silenced.removeprefix("watchdog.silenced.")


def encode(silence: Silence) -> bytes:
    """A silence as it is kept."""
    return orjson.dumps({"until": format_time(silence.until), "reason": silence.why, "by": silence.by})


def decode(payload: bytes) -> Silence | None:
    """Read a silence; None for what is none, which anyone could put there."""
    try:
        body: Any = orjson.loads(payload)
        until = parse_time(body["until"]).timestamp()
        return Silence(until, str(body.get("reason", ""))[:MAX_WHY], str(body.get("by", ""))[:MAX_WHY])
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


async def read(client: Client, names: Names) -> dict[str, Silence]:
    """All silences that are kept, by the subject of their gateway's status.

    Raises:
        StreamsError: JetStream does not answer, or has no WATCHDOG.
        NatsError: NATS went away.
    """
    stream = names.stream("WATCHDOG")
    found: dict[str, Silence] = {}
    for place in await direct_get.list_subjects(client, stream, names.subject(PATTERN)):
        answer = await direct_get.get_last_message(client, stream, place)
        silence = decode(answer.data) if answer is not None else None
        if silence is not None:
            found[status_subject(names.strip_prefix(place))] = silence
    return found


async def silence(client: Client, names: Names, gateway: str, seconds: float, why: str) -> str:
    """Silence a gateway, or end its silence.

    Args:
        client: connected.
        names: the deployment.
        gateway: its id, or ``type/id`` where the id alone is not enough.
        seconds: from now; 0 ends a silence.
        why: for those who ask.

    Returns:
        what was done, in one line.

    Raises:
        StreamsError: no such gateway, or JetStream refuses.
        NatsError: NATS went away.
    """
    gateway_type, slash, gateway_id = gateway.partition("/")
    known = await newest_statuses(client, names)
    found = [
        one
        for one in known.values()
        if (one.gateway_id == gateway)
        or (slash and (one.gateway_type, one.gateway_id) == (gateway_type, gateway_id))
    ]
    if len(found) != 1:
        several = ", ".join(f"{one.gateway_type}/{one.gateway_id}" for one in found)
        raise StreamsError(
            f"gateway {gateway!r} is {'not unique' if found else 'unknown'}",
            f"write one of {several}" if found else "look at its id on the page or in the monitor's file",
        )
    one = found[0]
    try:
        by = getpass.getuser()
    except (KeyError, OSError):
        by = "unknown"
    kept = Silence(time.time() + seconds, why[:MAX_WHY], by)
    await client.jetstream().publish(
        names.subject(subject(one.gateway_type, one.gateway_id)), encode(kept), timeout=5.0
    )
    if seconds <= 0:
        return f"{one.gateway_type}/{one.gateway_id} is no longer silenced"
    return f"{one.gateway_type}/{one.gateway_id} is silenced until {format_time(kept.until)}"
