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

from tickertape.errors import OperatorError
from tickertape.nats.client import inbox_prefix, server_info
from tickertape.nats.connect_errors import PermissionsViolation

_API_TIMEOUT: Final = 5.0
"""Seconds to wait for a reply."""

_RETRY_INTERVAL: Final = 0.5
"""Seconds after which an idempotent request is sent again: a cluster drops requests that arrive during a
leader election, and the new leader's reply must not wait until the lost request times out."""

_DENIAL_POLL_INTERVAL: Final = 0.05
"""Seconds between two checks for a permissions violation."""

_ERROR_NOT_FOUND: Final = 10059
_ERRORS_NOT_ENABLED: Final = (10039, 10076)
"""JetStream is not enabled for the account, or on the server."""


class StreamsError(OperatorError):
    """Failure of JetStream to provide a stream as the contract requires.

    Args:
        message: what happened, and to which stream.
        hint: what the operator can do.
        transient: whether the failure may resolve itself, as while a server starts or a cluster elects a
            leader.
    """

    def __init__(self, message: str, hint: str, *, transient: bool = False) -> None:
        super().__init__(message, hint)
        self.transient = transient


class StreamMissing(StreamsError):
    """Missing stream that this user may not create; another user has to create it.

    Args:
        stream: name of the stream in NATS.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"stream {stream} does not exist, and this NATS user may not create it",
            "run 'tickertape streams apply' as a user with that permission",
            transient=True,
        )


class PermissionDenied(StreamsError):
    """Request that this user may not send, or whose reply this user may not receive.

    Args:
        subject: subject that this user may not publish or subscribe to.
        verb: verb of the request, such as ``STREAM.INFO.EVENTS``.
        hint: what the operator can do.
    """

    def __init__(
        self,
        subject: str,
        verb: str,
        hint: str = "grant the permissions that deploy/nats/permissions.conf lists for this program",
    ) -> None:
        super().__init__(f"this NATS user may not use {subject}, which {verb} requires", hint)


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
            "start the server with -js, or add a jetstream block to its configuration",
            # A server that announces JetStream in INFO has not finished starting.
            transient=bool(server_info(nc).get("jetstream")),
        ) from None
    except (TimeoutError, NatsTimeoutError):
        raise StreamsError(
            f"JetStream did not reply to {verb} within {timeout_seconds:.0f} s",
            "check the server log; a cluster may have no leader",
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
    """Send a request and return the raw reply; check for permissions violations while waiting.

    NATS does not reply to a request that is not permitted; it reports the violation on the connection.

    Args:
        nc, verb, retry, timeout_seconds: as in ``request``.
        body: body of the request.

    Raises:
        PermissionDenied: this user may not send the request.
        NatsError: no reply arrived.
    """
    subject = f"$JS.API.{verb}"
    previous_error = nc.last_error
    now = asyncio.get_running_loop().time
    requests = [asyncio.ensure_future(nc.request(subject, body, timeout=timeout_seconds))]
    sent_at = now()
    try:
        while not (
            done := (
                await asyncio.wait(
                    requests, timeout=_DENIAL_POLL_INTERVAL, return_when=asyncio.FIRST_COMPLETED
                )
            )[0]
        ):
            if retry and now() - sent_at > _RETRY_INTERVAL:
                # The timeout of the first request limits the total time.
                requests.append(asyncio.ensure_future(nc.request(subject, body, timeout=timeout_seconds)))
                sent_at = now()
            # Polled, because the error callback belongs to the owner of the connection.
            if not isinstance(error := nc.last_error, PermissionsViolation):
                continue
            inbox = inbox_prefix(nc)
            # A denied inbox stays denied, but an old violation of this subject may have been resolved.
            if error.subject.startswith(f"{inbox}."):
                raise PermissionDenied(
                    f"{inbox}.>", verb, "set the inbox of this user with --nats-inbox-prefix"
                )
            if error is not previous_error and error.subject == subject:
                raise PermissionDenied(subject, verb)
        return done.pop().result()
    finally:
        for pending in requests:
            pending.cancel()


async def stream_info(nc: Client, stream: str) -> dict[str, Any] | None:
    """Return the information of a stream by its name in NATS; None if the stream does not exist."""
    response = await request(nc, f"STREAM.INFO.{stream}", retry=True)
    if "error" in response:
        if response["error"].get("err_code") == _ERROR_NOT_FOUND:
            return None
        raise stream_error(stream, response)
    return response


def server_version(nc: Client) -> tuple[int, int]:
    """Return the major and minor version of the connected server."""
    version = nc.connected_server_version
    return (version.major, version.minor)


def stream_error(stream: str, response: dict[str, Any]) -> StreamsError:
    """Return the exception for an error reply to a request about a stream."""
    error = response["error"]
    return StreamsError(
        f"NATS rejected stream {stream}: {error.get('description')} (code {error.get('err_code')})",
        "check for another stream with the same subjects ('nats stream ls') and the account limits",
    )


__all__ = [
    "PermissionDenied",
    "StreamMissing",
    "StreamsError",
    "request",
    "request_raw",
    "server_version",
    "stream_error",
    "stream_info",
]
