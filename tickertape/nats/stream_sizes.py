"""Maximum sizes of the streams: defaults, the operator's settings, and errors for streams that do not fit.

JetStream reserves a stream's ``max_bytes`` when the stream is created, regardless of how much of that is
used.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.config.model import Mark
from tickertape.nats.jetstream_api import StreamsError, request, stream_error
from tickertape.text import MIB
from tickertape.validation import checked_by

DEFAULT_SIZES: Final[dict[str, int]] = {
    "WATCHDOG": 64 * MIB,
    "EVENTS": 1024 * MIB,
    "LATEST": 256 * MIB,
    "HEALTH": 64 * MIB,
    "CHECKPOINTS": 64 * MIB,
    "REJECTED": 64 * MIB,
    "HISTORY": 512 * MIB,
}
"""Maximum bytes of each stream; 2 048 MiB in total."""

MIN_SIZE: Final = MIB
"""Minimum bytes of a stream: a few events of the maximum size."""

VARIABLE: Final = "TICKERTAPE_STREAMS_MAX_BYTES"
"""Environment variable that error hints refer to."""

_UNITS: Final = {
    "": 1, "b": 1,
    "k": 1024, "kib": 1024, "m": MIB, "mib": MIB, "g": 1024 * MIB, "gib": 1024 * MIB, "t": 1024**2 * MIB,
    "tib": 1024**2 * MIB, "kb": 1000, "mb": 1000**2, "gb": 1000**3, "tb": 1000**4,
}  # fmt: skip
_SIZE: Final = re.compile(r"(\d{1,12})\s*([a-z]*)", re.ASCII | re.IGNORECASE)
_MAX_SIZE: Final = 2**63 - 1
"""Maximum bytes of a stream: JetStream stores the size as a signed 64-bit integer."""

_NO_STORAGE: Final = frozenset({10002, 10047})
"""JetStream error codes: the storage of the account or the server is used up or reserved."""

_NO_PEERS: Final = 10005
"""JetStream error code: no server can hold a replica; the description says whether storage is the reason."""

_STREAM_TOO_LARGE: Final = 10122
_TOO_MANY_STREAMS: Final = 10027

Sizes = Mapping[str, int]
"""Maximum bytes by name of the stream in the contract; streams that are not listed use the default."""


def parse_sizes(text: str) -> dict[str, int]:
    """Parse sizes such as ``EVENTS=256MiB,REJECTED=8MiB``.

    Raises:
        ValueError: a stream is unknown or listed twice, or a size is invalid or out of range.
    """
    sizes: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, size = (field.strip() for field in part.partition("="))
        if not equals or name not in DEFAULT_SIZES:
            raise ValueError(
                f"{part[:60]!r} names no stream; use NAME=SIZE, such as EVENTS=256MiB, with one of"
                f" {', '.join(DEFAULT_SIZES)}"
            )
        if name in sizes:
            raise ValueError(f"{name} has two sizes; set only one")
        sizes[name] = _parse_size(name, size)
    return sizes


def _parse_size(name: str, text: str) -> int:
    match = _SIZE.fullmatch(text)
    factor = _UNITS.get(match[2].lower()) if match is not None else None
    if match is None or factor is None:
        raise ValueError(
            f"{text[:40]!r} is not a valid size for {name}; use a number with a unit, such as 256MiB"
        )
    size = int(match[1]) * factor
    if not MIN_SIZE <= size <= _MAX_SIZE:
        raise ValueError(
            # Plus one, because the maximum itself has no round unit.
            f"{text} for {name} is not between {format_size(MIN_SIZE)} and {format_size(_MAX_SIZE + 1)}"
        )
    return size


def format_size(size: int) -> str:
    """Format a size in the largest binary unit in which it is an integer."""
    for unit, factor in (("TiB", 1024**2 * MIB), ("GiB", 1024 * MIB), ("MiB", MIB), ("KiB", 1024)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


SizesText = Annotated[str, Mark.COMMAS, checked_by(parse_sizes)]


async def creation_error(
    nc: Client,
    stream: str,
    config: dict[str, Any],
    all_configs: list[dict[str, Any]],
    response: dict[str, Any],
) -> StreamsError:
    """Return the exception for a stream that JetStream rejects; explain the sizes if storage is the reason.

    Args:
        nc: a connected client, to request the limits of the account.
        stream: name of the stream in the contract.
        config: configuration of the stream.
        all_configs: the configurations of all streams.
        response: reply of the server to the request to create it.
    """
    error = response["error"]
    code, description = error.get("err_code"), str(error.get("description"))
    if code == _TOO_MANY_STREAMS:
        limit = (await _account(nc)).get("limits", {}).get("max_streams")
        return StreamsError(
            f"NATS rejected stream {config['name']}: the account is limited to {limit} streams, "
            f"but {len(all_configs)} are needed (code {code})",
            "raise max_streams of the account",
        )
    if (
        code not in _NO_STORAGE
        and code != _STREAM_TOO_LARGE
        and not (code == _NO_PEERS and "storage" in description)
    ):
        return stream_error(config["name"], response)
    replicas = max(1, int(config.get("num_replicas") or 1))
    total = format_size(sum(int(other["max_bytes"]) for other in all_configs))
    requested = f"stream {config['name']} reserves {format_size(int(config['max_bytes']))}"
    requested += f" of the {total} of all streams" + (
        f", on each of {replicas} servers" if replicas > 1 else ""
    )
    account = await _account(nc)
    return StreamsError(
        f"{requested}, and {_describe_storage(account, code)}: {description} (code {code})",
        f"reduce the size, for example with 'tickertape streams apply --max-bytes {stream}=256MiB' or "
        f"{VARIABLE}={stream}=256MiB, or raise {_limit_setting(account, code)}",
    )


def _describe_storage(account: dict[str, Any], code: int) -> str:
    limits = account.get("limits") or {}
    if code == _STREAM_TOO_LARGE:
        maximum = int(limits.get("storage_max_stream_bytes", 0))
        return f"the account allows at most {format_size(maximum)} per stream"
    # -1 means that the account is not limited, so the storage of the server is used up.
    maximum, reserved = int(limits.get("max_storage", -1)), int(account.get("reserved_storage", 0))
    if maximum > 0:
        return f"the account has {format_size(maximum)}, of which {format_size(reserved)} are reserved"
    return f"the server has less storage left ({format_size(reserved)} reserved)"


def _limit_setting(account: dict[str, Any], code: int) -> str:
    if code == _STREAM_TOO_LARGE:
        return "store_max_stream_bytes of the account"
    if int((account.get("limits") or {}).get("max_storage", -1)) > 0:
        return "max_file of the account"
    return "max_file_store of the server"


async def _account(nc: Client) -> dict[str, Any]:
    """Return the account information of JetStream; empty if this user may not request it."""
    try:
        return await request(nc, "INFO")
    except (StreamsError, NatsError):
        return {}
