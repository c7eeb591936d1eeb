"""Requests to the JetStream API, and the errors for requests that fail.

The requests use the JSON of the API directly: the features that Tickertape needs (atomic batches, message
schedules, transforms of sources) are newer than most client libraries.
"""

import asyncio
from typing import Any, Final

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import NoRespondersError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from tickertape.nats.client import server_info
from tickertape.nats.errors import PermissionDenied, StreamMissing, StreamsError
from tickertape.nats.storage.problems import NO_REPLY, NO_REPLY_HINT, storage_failure

_API_TIMEOUT: Final = 5.0
"""Seconds to wait for a reply."""

_RETRY_INTERVAL: Final = 0.5
"""Seconds after which an idempotent request is sent again: a cluster drops requests that arrive during a
leader election, and the new leader's reply must not wait until the lost request times out."""

ERROR_NOT_FOUND: Final = 10059
"""JetStream error code for a stream that does not exist."""

_ERRORS_NOT_ENABLED: Final = (10039, 10076)
"""JetStream is not enabled for the account, or on the server."""


async def request(
    nc: Client,
    verb: str,
    body: dict[str, Any] | None = None,
    *,
    retry: bool = False,
    timeout_seconds: float | None = None,
) -> dict[str, Any]:
    """Send a request to the JetStream API; return the reply, which may contain ``error``.

    Args:
        nc: a connected client.
        verb: subject of the request without its prefix, such as ``STREAM.INFO.EVENTS``.
        body: body of the request.
        retry: whether to send the request again until a reply arrives; for idempotent requests only.
        timeout_seconds: maximum time to wait for the reply; None means 5.

    Raises:
        PermissionDenied: this user may not send the request.
        StreamsError: JetStream is not available.
    """
    timeout_seconds = timeout_seconds or _API_TIMEOUT
    try:
        reply = await request_raw(nc, verb, orjson.dumps(body or {}), retry, timeout_seconds)
    # Without JetStream, no server subscribes to the subjects of its API.
    except NoRespondersError:
        raise StreamsError(
            "JetStream is not available on the NATS server",
            "start the server with -js, or add a jetstream block to its configuration; "
            "a leaf node needs the mapping of deploy/nats/leaf.conf",
            # A server that announces JetStream in INFO has not finished starting.
            transient=bool(server_info(nc).get("jetstream")),
        ) from None
    except (TimeoutError, NatsTimeoutError):
        raise StreamsError(
            f"JetStream did not reply to {verb} within {timeout_seconds:.0f} s",
            "check the log of the server and, behind a leaf node, of the hub; a cluster may have no leader",
            transient=True,
        ) from None
    try:
        response = orjson.loads(reply.data)
    except orjson.JSONDecodeError:
        response = None
    if not isinstance(response, dict) or not isinstance(error := response.get("error") or {}, dict):
        raise StreamsError(f"the reply to {verb} is invalid", "the request is retried", transient=True)
    if error and error.get("err_code") in _ERRORS_NOT_ENABLED:
        raise StreamsError(
            f"JetStream is not enabled: {error.get('description')}", "enable JetStream for this account"
        )
    return response


async def request_raw(
    nc: Client, verb: str, body: bytes, retry: bool = False, timeout_seconds: float = _API_TIMEOUT
) -> Msg:
    """Send a request and return the raw reply.

    Args:
        nc, verb, retry, timeout_seconds: as in ``request``.
        body: body of the request.

    Raises:
        PermissionDenied: this user may not send the request.
        NatsError: no reply arrived.
    """
    subject = f"$JS.API.{verb}"
    # The timeout of the first request limits the total time.
    requests = [asyncio.ensure_future(nc.request(subject, body, timeout=timeout_seconds))]
    try:
        while True:
            wait = _RETRY_INTERVAL if retry else None
            done, _ = await asyncio.wait(requests, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return done.pop().result()
            requests.append(asyncio.ensure_future(nc.request(subject, body, timeout=timeout_seconds)))
    finally:
        for pending in requests:
            # Several fail together if the inbox is denied; each failure must be retrieved.
            if not pending.cancel() and not pending.cancelled():
                pending.exception()


async def stream_info(nc: Client, stream: str) -> dict[str, Any] | None:
    """Return the information of a stream by its name in NATS; None if the stream does not exist."""
    response = await request(nc, f"STREAM.INFO.{stream}", retry=True)
    if "error" in response:
        if response["error"].get("err_code") == ERROR_NOT_FOUND:
            return None
        raise stream_error(stream, response)
    return response


def describe_publish_error(error: Exception) -> str:
    """Return the text of an error of a publish that waits for its acknowledgement, with the likely cause."""
    if isinstance(error, (TimeoutError, NatsTimeoutError)):
        return f"{NO_REPLY}; {NO_REPLY_HINT}"
    if isinstance(error, APIError) and error.err_code is not None:
        failure = storage_failure(error.err_code, error.description or "")
        if failure is not None:
            return "; ".join(failure)
    return str(error) or type(error).__name__


def server_version(nc: Client) -> tuple[int, int]:
    """Return the major and minor version of the connected server."""
    version = nc.connected_server_version
    return (version.major, version.minor)


def missing_features(version: tuple[int, int]) -> list[str]:
    """Return messages about features that a server lacks: the version required and what still works."""
    if version >= (2, 12):
        rejects = "NATS 2.12 can reject what the monitors' dead man's switch publishes (fixed in 2.14)"
        return [rejects] if version < (2, 14) else []
    return [
        f"NATS {version[0]}.{version[1]} lacks message schedules and atomic batches (added in 2.12): feeds, "
        "resume and history work, but the dead man's switch of the monitors does not, and shipping is at "
        "least once beyond the duplicate window"
    ]


def stream_error(stream: str, response: dict[str, Any]) -> StreamsError:
    """Return the exception for an error reply to a request about a stream."""
    error = response["error"]
    return StreamsError(
        f"NATS rejected stream {stream}: {error.get('description')} (code {error.get('err_code')})",
        "check for another stream with the same subjects ('nats stream ls') and the account limits",
    )


__all__ = [
    "ERROR_NOT_FOUND",
    "PermissionDenied",
    "StreamMissing",
    "StreamsError",
    "describe_publish_error",
    "missing_features",
    "request",
    "request_raw",
    "server_version",
    "stream_error",
    "stream_info",
]
