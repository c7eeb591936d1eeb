"""Direct reads of single messages (NATS ADR-31); any replica of the stream answers them."""

import re
from datetime import UTC, datetime
from typing import Final

import orjson
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError

from contracts.streams import StreamsError

REQUEST_TIMEOUT: Final = 5.0
"""Seconds that an answer may take."""

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def nanoseconds(text: str) -> int | None:
    """Read a time as nats-server writes it (RFC 3339) into UNIX nanoseconds; None when it is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        return None
    try:
        since = datetime.fromisoformat(found[1] + found[3]) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + int((found[2] or "").ljust(9, "0"))


async def stored_at(nc: Client, stream: str, seq: int) -> int | None:
    """Ask a stream when it stored a message.

    Args:
        nc: a connected client.
        stream: name in NATS.
        seq: sequence of the message.

    Returns:
        UNIX nanoseconds; None when the message is not there, or the stream allows no direct reads.

    Raises:
        StreamsError: the stream does not answer.
    """
    try:
        reply = await nc.request(
            f"$JS.API.DIRECT.GET.{stream}", orjson.dumps({"seq": seq}), timeout=REQUEST_TIMEOUT
        )
    except NoRespondersError:
        return None
    except (TimeoutError, NatsTimeoutError):
        raise StreamsError(
            f"stream {stream} did not answer a direct read within {REQUEST_TIMEOUT:.0f} s",
            "look at the server's log",
            passing=True,
        ) from None
    headers = reply.headers or {}
    return nanoseconds(headers.get("Nats-Time-Stamp", ""))
