"""State of nats-server's store as its monitoring port shows it: ``/healthz`` and ``/jsz``."""

import asyncio
import ssl
from collections.abc import Collection, Iterable
from typing import Any, Final

import orjson

from tickertape.errors import OperatorError
from tickertape.nats.storage.problems import (
    FULL_HINT,
    QUOTA_HINT,
    READ_ONLY_HINT,
    SERVER_LIMIT_HINT,
    STREAM_LIMIT_HINT,
    StoreCause,
    StoreProblem,
)
from tickertape.net.http_client import fetch
from tickertape.net.outgoing import describe_failure
from tickertape.text import printable
from tickertape.urls import redact_url

TIMEOUT: Final = 3.0
"""Seconds for a request to the monitoring port."""

MAX_HEALTH_BYTES: Final = 64 * 1024
"""Maximum bytes of a response of ``/healthz``."""

MAX_USAGE_BYTES: Final = 4 * 1024 * 1024
"""Maximum bytes of a response of ``/jsz``, which describes every stream of the server."""

MARGIN: Final = 256 * 1024
"""Bytes below a limit from which it counts as reached: the maximum size of an event."""

_UNLIMITED: Final = 1 << 62
"""Limit from which there is none: the server reports -1 as an unsigned number."""

# Texts of the operating system in lower case, as Go spells them. A disk quota is resolved like a full disk.
_WRITE_ERRORS: Final = (
    ("no space left on device", StoreCause.FULL, "its disk is full", FULL_HINT),
    (
        "quota exceeded",
        StoreCause.FULL,
        "the disk quota of its user is used up",
        "free space or raise the quota, then restart nats-server",
    ),
    ("read-only file system", StoreCause.READ_ONLY, "its store is read-only", READ_ONLY_HINT),
    ("permission denied", StoreCause.READ_ONLY, "it may not write to its store", READ_ONLY_HINT),
)
_REPAIR: Final = "repair the store, then restart nats-server; its log has the details"


class MonitoringError(OperatorError):
    """Failure to read the monitoring port of nats-server."""


def parse_health(status: int, body: bytes) -> StoreProblem | None:
    """Return the problem that a response of ``/healthz`` reports.

    Args:
        status: HTTP status.
        body: JSON.

    Returns:
        None if the store is healthy, or the server reports something else, such as that it is starting.
    """
    if status == 200:
        return None
    text = _text_of(_decode(body).get("error"))
    lower = text.lower()
    if "10076" in lower or "jetstream is not enabled" in lower:
        return StoreProblem(
            StoreCause.DISABLED,
            "it has disabled JetStream, as after a write to its store that was denied",
            f"{READ_ONLY_HINT}; its log has the details",
        )
    if "write error" not in lower and "failed to store" not in lower:
        return None
    for phrase, cause, reason, hint in _WRITE_ERRORS:
        if phrase in lower:
            return StoreProblem(cause, f"{reason} ({text})", hint)
    return StoreProblem(StoreCause.FAILED, f"writing to its store failed ({text})", _REPAIR)


def parse_usage(body: bytes, streams: Collection[str]) -> StoreProblem | None:
    """Return the limit that a response of ``/jsz?accounts=1&streams=1&config=1`` shows as reached.

    Args:
        body: JSON.
        streams: names of the streams that matter; limits of their account and of the server count.
    """
    usage = _decode(body)
    for account in _objects(usage.get("account_details")):
        own = [stream for stream in _objects(account.get("stream_detail")) if stream.get("name") in streams]
        if not own:
            continue
        name = _text_of(account.get("name"))
        if _is_reached(account.get("storage"), account.get("reserved_storage")):
            reason = f"account {name} has used its storage quota"
            return StoreProblem(StoreCause.QUOTA, reason, QUOTA_HINT)
        for stream in own:
            config, state = _object(stream.get("config")), _object(stream.get("state"))
            if config.get("discard") == "new" and (
                _is_reached(state.get("bytes"), config.get("max_bytes"))
                or _is_reached(state.get("messages"), config.get("max_msgs"), margin=0)
            ):
                reason = f"stream {_text_of(stream.get('name'))} is full and rejects new messages"
                return StoreProblem(StoreCause.QUOTA, reason, STREAM_LIMIT_HINT)
    if _is_reached(usage.get("storage"), _object(usage.get("config")).get("max_storage")):
        return StoreProblem(StoreCause.QUOTA, "its limit max_file_store is reached", SERVER_LIMIT_HINT)
    return None


async def read_store(
    url: str, streams: Collection[str], tls: ssl.SSLContext | None = None
) -> StoreProblem | None:
    """Read the state of the store from the monitoring port; return None if the server can store events.

    Args:
        url: address of the monitoring port, such as http://127.0.0.1:8222.
        streams: names of the streams that matter.
        tls: TLS context for https; None trusts the authorities of the system.

    Raises:
        MonitoringError: the port does not respond as nats-server's does.
    """
    problem = parse_health(*await _get(url, "/healthz", MAX_HEALTH_BYTES, tls))
    if problem is not None:
        return problem
    _, body = await _get(url, "/jsz?accounts=true&streams=true&config=true", MAX_USAGE_BYTES, tls)
    return parse_usage(body, streams)


async def read_stores(
    urls: Iterable[str], streams: Collection[str], tls: ssl.SSLContext | None = None
) -> StoreProblem | None:
    """Read the state of all servers of a cluster; return the first problem.

    Args:
        urls: addresses of the monitoring ports.
        streams, tls: as in ``read_store``.

    Raises:
        MonitoringError: a port does not respond, and none of the others reports a problem.
    """
    results = await asyncio.gather(*(read_store(url, streams, tls) for url in urls), return_exceptions=True)
    for result in results:
        if isinstance(result, StoreProblem):
            return result
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return None


async def _get(url: str, path: str, max_bytes: int, tls: ssl.SSLContext | None) -> tuple[int, bytes]:
    address = redact_url(url)
    hint = "check --nats-monitoring-url, and that the configuration of nats-server sets http or https"
    try:
        response = await fetch(url.rstrip("/") + path, TIMEOUT, max_bytes, tls=tls)
    except (OSError, TimeoutError) as error:
        reason = describe_failure(error)
        raise MonitoringError(f"monitoring port of NATS at {address} unreachable: {reason}", hint) from None
    if response.truncated or not isinstance(_try_decode(response.body), dict):
        raise MonitoringError(f"{address} is not the monitoring port of a nats-server", hint)
    return response.status, response.body


def _is_reached(used: Any, limit: Any, margin: int = MARGIN) -> bool:
    if not isinstance(used, int) or not isinstance(limit, int) or not 0 < limit < _UNLIMITED:
        return False
    # A small limit is not reached just because it is smaller than the margin.
    return used + min(margin, limit // 10) >= limit


def _try_decode(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def _decode(body: bytes) -> dict[str, Any]:
    return _object(_try_decode(body))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _text_of(value: Any) -> str:
    return printable(value)[:300] if isinstance(value, str) else ""
