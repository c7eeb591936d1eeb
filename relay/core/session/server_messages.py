"""What the relay says to one client: the messages that are not made of events."""

from tickertape.contracts.close_codes import CLOSE_CODES, CloseCode, Reconnect
from tickertape.contracts.events import format_time
from tickertape.contracts.messages import MAX_MESSAGE_BYTES, MAX_SUBJECTS, SUBPROTOCOL, ProtocolError
from tickertape.relay.core.fanout import encoding as frames
from tickertape.relay.core.fanout.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.session import Request


def welcome(relay: str, session: str, heartbeat_ms: int, grant: Grant, rate: float) -> bytes:
    """First message of a session.

    Args:
        relay: its name.
        session: its id.
        heartbeat_ms: longest silence.
        grant: what it may do.
        rate: log events per second that it gets in mode ``live``.
    """
    return frames.message(
        "welcome",
        protocol=SUBPROTOCOL,
        relay=relay,
        session=session,
        heartbeat_ms=heartbeat_ms,
        limits={"rate": rate, "max_message_bytes": MAX_MESSAGE_BYTES, "max_subjects": MAX_SUBJECTS},
        grant={"subjects": grant.subjects, "deny": grant.deny, "level": grant.level, "rate": rate},
        expires_at=None if grant.expires_at is None else format_time(grant.expires_at),
    )


def subscribed(wanted: Filter, request: Request, cursor: str, *, resumed: bool, ends: float | None) -> bytes:
    """What the session follows from here on.

    Args:
        wanted: its filter, cut to its grant.
        request: what it asked for.
        cursor: where it starts.
        resumed: whether it goes on from there, without a snapshot.
        ends: end of its token, UNIX seconds; None without one.
    """
    token = {} if ends is None else {"expires_at": format_time(ends)}
    return frames.message(
        "subscribed",
        subjects=wanted.subjects,
        level=wanted.level,
        mode=request.mode,
        interval_ms=request.interval_ms,
        cursor=cursor,
        resumed=resumed,
        **token,
    )


def token_expiring(ends: float) -> bytes:
    """The token ends soon, at ``ends``, UNIX seconds."""
    return frames.message("token_expiring", expires_at=format_time(ends))


def error(what: ProtocolError, code: CloseCode) -> bytes:
    """Something was refused, as by a close with ``code``."""
    retry = CLOSE_CODES[code].reconnect is not Reconnect.NEVER
    return frames.message("error", code=what.code, message=what.message, retry=retry, ref=what.ref)


def bye(code: CloseCode, reason: str, retry_after_ms: int | None) -> bytes:
    """The relay closes after this."""
    return frames.message("bye", code=int(code), reason=reason, retry_after_ms=retry_after_ms)


def reset(before: str, after: str) -> bytes:
    """The stream is another one: all that lies between two cursors is gone, and nobody can count it."""
    return frames.message("gap", **{"from": before, "to": after}, dropped=None, by={}, reason="reset")


def upstream(connected: bool, since: float) -> bytes:
    """Whether the relay hears from NATS, and since when, UNIX seconds."""
    state = "connected" if connected else "disconnected"
    return frames.message("upstream", state=state, since=format_time(since))


def heartbeat(cursor: str, time: str) -> bytes:
    """The link is alive, and this is the place reached; ``time`` is as ``format_time`` writes it."""
    return frames.message("heartbeat", cursor=cursor, time=time)
