"""Questions to JetStream, and what is said when it does not answer them.

In the JSON of its API, since the settings that are wanted here (atomic batches, schedules, transforms of
sources) are newer than most client libraries.
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
_RETRY_INTERVAL: Final = 0.5
"""Seconds after which a question that changes nothing is asked once more: what a cluster is asked while it
elects a leader is never answered, and the new leader's answer must not wait for the old question's end."""

_DENIAL_POLL_INTERVAL: Final = 0.05
_ERROR_NOT_FOUND: Final = 10059


class StreamsError(OperatorError):
    """JetStream cannot serve as the contract needs it.

    Args:
        message: what happened, to which stream.
        hint: what to do about it.
        passing: True when it may pass by itself, as while a server starts or a cluster elects.
    """

    def __init__(self, message: str, hint: str, *, transient: bool = False) -> None:
        super().__init__(message, hint)
        self.transient = transient


class StreamMissing(StreamsError):
    """A stream is absent, and this user may not create it: somebody else has to, and then all is well.

    Args:
        stream: name in NATS.
    """

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"stream {stream} is absent, and this NATS user may not create it",
            "run 'tickertape streams apply' as a user who may",
            transient=True,
        )


class PermissionDenied(StreamsError):
    """NATS does not let this user ask.

    Args:
        subject: what this user may not publish to, or listen on.
        verb: of the question.
        hint: what to do about it.
    """

    def __init__(
        self,
        subject: str,
        verb: str,
        hint: str = "give it the permissions that deploy/nats/permissions.conf has for this program",
    ) -> None:
        super().__init__(f"this NATS user may not use {subject}, which {verb} needs", hint)


async def request(
    nc: Client,
    verb: str,
    body: dict[str, Any] | None = None,
    *,
    retry: bool = False,
    timeout_seconds: float | None = None,
) -> dict[str, Any]:
    """Ask JetStream's API; return its answer, which may hold ``error``.

    Args:
        nc: a connected client.
        verb: such as ``STREAM.INFO.EVENTS``.
        body: the request.
        retry: ask again while no answer comes; for what may be done twice.
        timeout_seconds: time to wait for the answer; 5 by default.

    Raises:
        Forbidden: this user may not ask that.
        StreamsError: JetStream is not there.
    """
    timeout_seconds = timeout_seconds or _API_TIMEOUT
    try:
        reply = await request_raw(nc, verb, orjson.dumps(body or {}), retry, timeout_seconds)
    except NoRespondersError:
        raise StreamsError(
            "the NATS server has no JetStream",
            "start it with -js, or with a jetstream block and account",
            # A server that says it has it is only starting.
            transient=bool(server_info(nc).get("jetstream")),
        ) from None
    except (TimeoutError, NatsTimeoutError):
        raise StreamsError(
            f"JetStream did not answer {verb} within {timeout_seconds:.0f} s",
            "look at the server's log; a cluster may be without a leader",
            transient=True,
        ) from None
    try:
        answer = orjson.loads(reply.data)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(error := answer.get("error") or {}, dict):
        raise StreamsError(f"the answer to {verb} cannot be read", "it is asked again", transient=True)
    if error and error.get("err_code") in (10039, 10076):
        raise StreamsError(
            f"JetStream is not enabled: {error.get('description')}", "enable it for this account"
        )
    return answer


async def request_raw(
    nc: Client, verb: str, body: bytes, retry: bool = False, timeout_seconds: float = _API_TIMEOUT
) -> Msg:
    """Ask, and look for a refusal meanwhile: NATS leaves what is not allowed without an answer.

    Args:
        nc, verb, retry, timeout_seconds: as in ``request``.
        body: the request.

    Raises:
        Forbidden: this user may not ask that.
        NatsError: no answer came.
    """
    subject = f"$JS.API.{verb}"
    before = nc.last_error
    now = asyncio.get_running_loop().time
    asking = [asyncio.ensure_future(nc.request(subject, body, timeout=timeout_seconds))]
    asked = now()
    try:
        while not (
            ended := (
                await asyncio.wait(asking, timeout=_DENIAL_POLL_INTERVAL, return_when=asyncio.FIRST_COMPLETED)
            )[0]
        ):
            if retry and now() - asked > _RETRY_INTERVAL:
                # The first one's time is that of all.
                asking.append(asyncio.ensure_future(nc.request(subject, body, timeout=timeout_seconds)))
                asked = now()
            if not isinstance(error := nc.last_error, PermissionsViolation):
                continue
            inbox = inbox_prefix(nc)
            # An inbox that is refused stays so; a question may have been allowed since it was refused.
            if error.subject.startswith(f"{inbox}."):
                raise PermissionDenied(f"{inbox}.>", verb, "give its own inbox with --nats-inbox-prefix")
            if error is not before and error.subject == subject:
                raise PermissionDenied(subject, verb)
        return ended.pop().result()
    finally:
        for one in asking:
            one.cancel()


async def stream_info(nc: Client, stream: str) -> dict[str, Any] | None:
    """Information on a stream by its name in NATS; None when it is absent."""
    answer = await request(nc, f"STREAM.INFO.{stream}", retry=True)
    if "error" in answer:
        if answer["error"].get("err_code") == _ERROR_NOT_FOUND:
            return None
        raise stream_error(stream, answer)
    return answer


def server_version(nc: Client) -> tuple[int, int]:
    """Major and minor version of the server that the client is connected to."""
    version = nc.connected_server_version
    return (version.major, version.minor)


def stream_error(stream: str, answer: dict[str, Any]) -> StreamsError:
    """The error of an answer to a question about a stream."""
    error = answer["error"]
    return StreamsError(
        f"NATS refused stream {stream}: {error.get('description')} (code {error.get('err_code')})",
        "look for another stream with the same subjects ('nats stream ls'), or at the account's limits",
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
