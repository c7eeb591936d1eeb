"""What the relay says to one client: each message built from its model, in this place and no other."""

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
        relay: its name.
        session: its id.
        heartbeat_ms: longest silence.
        grant: what the client may see.
        rate: log events per second that it gets in mode ``live``.
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
    wanted: Filter, mode: Mode, interval_ms: int, cursor: str, *, resumed: bool, expires_at: float | None
) -> Subscribed:
    """Build the answer to a subscription.

    Args:
        wanted: its filter, cut to its grant.
        mode: how gaps and speed are traded.
        interval_ms: least time between two batches in mode ``latest``.
        cursor: where it starts.
        resumed: whether it continues from there, without a snapshot.
        expires_at: end of the client's token, UNIX seconds; None without one.
    """
    token = {} if expires_at is None else {"expires_at": format_time(expires_at)}
    return Subscribed(
        type="subscribed",
        subjects=list(wanted.subjects),
        level=cast(LevelName, wanted.level),
        mode=mode,
        interval_ms=interval_ms,
        cursor=cursor,
        resumed=resumed,
        **token,
    )


def gap(start: str, end: str, reason: GapReason, by: dict[str, int] | None = None) -> Gap:
    """Build a gap.

    Args:
        start: cursor before the events that will not come.
        end: cursor of the last of them.
        reason: why they will not come.
        by: how many, by the first two tokens of their subjects; None when that cannot be known.
    """
    dropped = None if by is None else sum(by.values())
    bounds = {"from": start, "to": end}
    return Gap(type="gap", dropped=dropped, by=by or {}, reason=reason, **bounds)


def token_expiring(expires_at: float) -> TokenExpiring:
    """Build the notice that a token ends soon, at a time in UNIX seconds."""
    return TokenExpiring(type="token_expiring", expires_at=format_time(expires_at))


def error(what: ProtocolError, code: CloseCode) -> Error:
    """Build the answer to a client's error; ``code`` is that of the close which goes with it."""
    retry = CLOSE_CODES[code].reconnect is not Reconnect.NEVER
    return Error(type="error", code=what.code, message=what.message, retry=retry, ref=what.ref)


def bye(code: CloseCode, reason: str, retry_after_ms: int | None) -> Bye:
    """Build the last message before a close."""
    return Bye(type="bye", code=int(code), reason=reason, retry_after_ms=retry_after_ms)


def upstream(connected: bool, since: float) -> Upstream:
    """Build the news of the connection to NATS; ``since`` is in UNIX seconds."""
    return Upstream(
        type="upstream", state="connected" if connected else "disconnected", since=format_time(since)
    )


def heartbeat(cursor: str, time: str) -> Heartbeat:
    """Build a heartbeat; ``time`` is as ``format_time`` writes it."""
    return Heartbeat(type="heartbeat", cursor=cursor, time=time)


def pong(id: str | int | None) -> Pong:
    """Build the answer to a ``ping``."""
    return Pong(type="pong", id=id)
