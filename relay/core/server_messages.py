"""Messages from the relay to one client; this is the only module that builds them from their models."""

from typing import cast

from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode, Reconnect
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import (
    MAX_MESSAGE_BYTES,
    MAX_SUBJECTS,
    SUBPROTOCOL,
    Bye,
    Error,
    Gap,
    GapReason,
    Heartbeat,
    LevelName,
    Limits,
    Mode,
    Pong,
    ProtocolError,
    Subscribed,
    TokenExpiring,
    Upstream,
    Welcome,
)
from tickertape.contracts.messages import Grant as Granted
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant


def welcome(relay: str, session: str, heartbeat_ms: int, grant: Grant, rate: float) -> Welcome:
    """Build the first message of a session.

    Args:
        relay: name of the relay.
        session: id of the session.
        heartbeat_ms: maximum milliseconds between two messages.
        grant: grant of the client.
        rate: maximum log events per second in mode ``live``.
    """
    return Welcome(
        type="welcome",
        protocol=SUBPROTOCOL,
        relay=relay,
        session=session,
        heartbeat_ms=heartbeat_ms,
        limits=Limits(rate=rate, max_message_bytes=MAX_MESSAGE_BYTES, max_subjects=MAX_SUBJECTS),
        grant=Granted(
            subjects=list(grant.subjects),
            deny=list(grant.deny),
            level=cast(LevelName, grant.level),
            rate=rate,
        ),
        expires_at=None if grant.expires_at is None else format_time(grant.expires_at),
    )


def subscribed(
    event_filter: Filter,
    mode: Mode,
    interval_ms: int,
    cursor: str,
    *,
    resumed: bool,
    expires_at: float | None,
) -> Subscribed:
    """Build the reply to a subscription.

    Args:
        event_filter: filter of the session, after intersection with its grant.
        mode: delivery mode.
        interval_ms: minimum milliseconds between two batches in mode ``latest``.
        cursor: position that the session starts from.
        resumed: whether the session continues from the client's cursor, without a snapshot.
        expires_at: expiry of the client's token, UNIX seconds; None without a token.
    """
    # Without a token or a condition its field is absent, not null.
    optional = {} if expires_at is None else {"expires_at": format_time(expires_at)}
    if event_filter.where is not None:
        optional["where"] = event_filter.where.source
    return Subscribed(
        type="subscribed",
        subjects=list(event_filter.subjects),
        level=cast(LevelName, event_filter.level),
        mode=mode,
        interval_ms=interval_ms,
        cursor=cursor,
        resumed=resumed,
        **optional,
    )


def gap(start: str, end: str, reason: GapReason, by: dict[str, int] | None = None) -> Gap:
    """Build a gap.

    Args:
        start: cursor before the events that are not delivered.
        end: cursor of the last of these events.
        reason: why they are not delivered.
        by: number of events by the first two tokens of their subjects; None if unknown.
    """
    dropped = None if by is None else sum(by.values())
    bounds = {"from": start, "to": end}  # ``from`` is a keyword of Python
    return Gap(type="gap", dropped=dropped, by=by or {}, reason=reason, **bounds)


def token_expiring(expires_at: float) -> TokenExpiring:
    """Build the notice that a token expires soon; ``expires_at`` is in UNIX seconds."""
    return TokenExpiring(type="token_expiring", expires_at=format_time(expires_at))


def error(failure: ProtocolError, code: CloseCode) -> Error:
    """Build the reply to an error of the client; ``code`` is the close code that goes with it."""
    retry = CLOSE_CODES[code].reconnect is not Reconnect.NEVER
    return Error(type="error", code=failure.code, message=failure.message, retry=retry, ref=failure.ref)


def bye(code: CloseCode, reason: str, retry_after_ms: int | None) -> Bye:
    """Build the last message before a close."""
    return Bye(type="bye", code=int(code), reason=reason, retry_after_ms=retry_after_ms)


def upstream(connected: bool, since: float) -> Upstream:
    """Build a report on the connection to NATS; ``since`` is in UNIX seconds."""
    return Upstream(
        type="upstream", state="connected" if connected else "disconnected", since=format_time(since)
    )


def heartbeat(cursor: str, time: str) -> Heartbeat:
    """Build a heartbeat; ``time`` is formatted by ``format_time``."""
    return Heartbeat(type="heartbeat", cursor=cursor, time=time)


def pong(id: str | int | None) -> Pong:
    """Build the reply to a ``ping``."""
    return Pong(type="pong", id=id)
