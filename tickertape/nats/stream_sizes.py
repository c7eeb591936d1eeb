"""How large the streams may become: what is reserved for them, how an operator says it, what does not fit.

JetStream reserves a stream's ``max_bytes`` when the stream is created, whether it is ever filled or not.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.nats.jetstream_api import StreamsError, request, stream_error
from tickertape.validation import checked_by

MIB: Final = 1024 * 1024

DEFAULT_SIZES: Final[dict[str, int]] = {
    "WATCHDOG": 64 * MIB,
    "EVENTS": 1024 * MIB,
    "LATEST": 256 * MIB,
    "CHECKPOINTS": 64 * MIB,
    "REJECTED": 64 * MIB,
}
"""Bytes of each stream; 1 472 MiB in all."""

MIN_SIZE: Final = MIB
"""Bytes that a stream must have: a few events of the largest size."""

VARIABLE: Final = "TICKERTAPE_STREAMS_MAX_BYTES"

_UNITS: Final = {
    "": 1, "b": 1,
    "k": 1024, "kib": 1024, "m": MIB, "mib": MIB, "g": 1024 * MIB, "gib": 1024 * MIB, "t": 1024**2 * MIB,
    "tib": 1024**2 * MIB, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d{1,12})\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_MAX_SIZE: Final = 2**63 - 1

_NO_STORAGE: Final = frozenset({10002, 10047})
"""Error codes of JetStream: the account's limit, or the server's storage, is used up or reserved."""

_NO_PEERS: Final = 10005
"""No server of a cluster is fit for a copy; the description says whether it is for want of storage."""

_STREAM_TOO_LARGE: Final = 10122
_TOO_MANY_STREAMS: Final = 10027

Sizes = Mapping[str, int]
"""Bytes by a stream's name in the contract; what is absent has no size of its own."""


def parse_sizes(text: str) -> dict[str, int]:
    """Read sizes: ``EVENTS=256MiB,REJECTED=8MiB``.

    Raises:
        ValueError: a stream is unknown or named twice, or its size is none or too small.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, size = (one.strip() for one in part.partition("="))
        if not equals or name not in DEFAULT_SIZES:
            raise ValueError(
                f"{part[:60]!r} names no stream; write it as EVENTS=256MiB, for {', '.join(DEFAULT_SIZES)}"
            )
        if name in sizes:
            raise ValueError(f"{name} has two sizes; give one")
        sizes[name] = _bytes(name, size)
    return sizes


def _bytes(name: str, text: str) -> int:
    found = _SIZE.fullmatch(text)
    factor = _UNITS.get(found[2].lower()) if found is not None else None
    if found is None or factor is None:
        raise ValueError(f"{text[:40]!r} is no size for {name}; write a number with a unit, as in 256MiB")
    size = int(found[1]) * factor
    if not MIN_SIZE <= size <= _MAX_SIZE:
        raise ValueError(
            f"{text} for {name} is not within {format_size(MIN_SIZE)} and {format_size(_MAX_SIZE + 1)}"
        )
    return size


def format_size(size: int) -> str:
    """Write a size in the largest unit that leaves a whole number."""
    for unit, factor in (("TiB", 1024**2 * MIB), ("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


SizesText = Annotated[str, checked_by(parse_sizes)]


async def creation_error(
    nc: Client, stream: str, wanted: dict[str, Any], every: list[dict[str, Any]], answer: dict[str, Any]
) -> StreamsError:
    """Make the error of a stream that JetStream refuses, and say it in sizes when that is the reason.

    Args:
        nc: asks what the account may take.
        stream: its name in the contract.
        wanted: its configuration.
        every: the configurations of all streams.
        answer: of the server.
    """
    error = answer["error"]
    code, why = error.get("err_code"), str(error.get("description"))
    if code == _TOO_MANY_STREAMS:
        limit = (await _account(nc)).get("limits", {}).get("max_streams")
        return StreamsError(
            f"NATS refused stream {wanted['name']}: this account may have {limit} streams, and "
            f"{len(every)} are needed (code {code})",
            "raise max_streams of the account",
        )
    if code not in _NO_STORAGE and code != _STREAM_TOO_LARGE and not (code == _NO_PEERS and "storage" in why):
        return stream_error(wanted["name"], answer)
    copies = max(1, int(wanted.get("num_replicas") or 1))
    total = format_size(sum(int(one["max_bytes"]) for one in every))
    asked = f"stream {wanted['name']} reserves {format_size(int(wanted['max_bytes']))}"
    asked += f" of the {total} of all streams" + (f", on each of {copies} servers" if copies > 1 else "")
    account = await _account(nc)
    return StreamsError(
        f"{asked}, and {_has(account, code)}: {why} (code {code})",
        f"make it smaller, as with 'tickertape streams apply --max-bytes {stream}=256MiB' or "
        f"{VARIABLE}={stream}=256MiB, or raise {_limit(account, code)}",
    )


def _has(account: dict[str, Any], code: int) -> str:
    limits = account.get("limits") or {}
    if code == _STREAM_TOO_LARGE:
        most = int(limits.get("storage_max_stream_bytes", 0))
        return f"this account allows {format_size(most)} for one stream"
    most, reserved = int(limits.get("max_storage", -1)), int(account.get("reserved_storage", 0))
    if most > 0:
        return f"this account has {format_size(most)}, of which {format_size(reserved)} are reserved"
    return f"the server has less than that left ({format_size(reserved)} are reserved)"


def _limit(account: dict[str, Any], code: int) -> str:
    if code == _STREAM_TOO_LARGE:
        return "store_max_stream_bytes of the account"
    if int((account.get("limits") or {}).get("max_storage", -1)) > 0:
        return "max_file of the account"
    return "max_file_store of the server"


async def _account(nc: Client) -> dict[str, Any]:
    """What JetStream says of this account; empty where this user may not ask."""
    try:
        return await request(nc, "INFO")
    except (StreamsError, NatsError):
        return {}
