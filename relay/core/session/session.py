"""One client's side of the protocol: what it may say in which state, and what it asked for.

The table at the end is the whole of it; the hub carries out what the table decides.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Protocol, cast, get_args
from urllib.parse import parse_qsl

from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.events import parse_time
from tickertape.contracts.messages import (
    DEFAULT_INTERVAL_MS,
    MAX_QUERY_BYTES,
    Auth,
    ClientMessage,
    Cursor,
    Mode,
    Ping,
    Subscribe,
    WireError,
    check_subjects,
    parse_cursor,
)
from tickertape.contracts.subjects import LEVELS

from tickertape.durations import is_duration, parse_duration

if TYPE_CHECKING:
    from tickertape.relay.core.fanout.encoding import Variant
    from tickertape.relay.core.fanout.feed import Feed
    from tickertape.relay.core.fanout.flush_pacer import TokenBucket
    from tickertape.relay.core.grants import Grant

MODES: Final = get_args(Mode)
MAX_INTERVAL_MS: Final = 60_000
QUERY_KEYS: Final = ("subjects", "level", "mode", "cursor", "since", "interval_ms")
"""Parameters of the feed's query; history has some more."""

_MAX_QUERY_FIELDS: Final = 32
_TOKEN_KEYS: Final = frozenset({"token", "access_token", "jwt", "authorization"})
_FILTER_ERRORS: Final = frozenset(
    {
        ErrorCode.BAD_SUBJECTS,
        ErrorCode.BAD_LEVEL,
        ErrorCode.BAD_MODE,
        ErrorCode.BAD_CURSOR,
        ErrorCode.BAD_SINCE,
        ErrorCode.BAD_INTERVAL,
    }
)


class Link(Protocol):
    """What a session writes to; no call blocks."""

    variant: "Variant"
    """How it wants its frames."""

    def send(self, data: bytes) -> None:
        """Write whole frames."""

    def admit(self, grant: "Grant") -> bool:
        """Count it as one of its token's subject; False when that has connections enough."""

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake."""

    def abort(self) -> None:
        """Cut the connection, whatever is still to be said."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks to follow, checked.

    Attributes:
        subjects: legal patterns; all of them, when the client named none.
        level: least level.
        mode: how gaps and speed are traded.
        interval_ms: least time between two batches in mode ``latest``.
        cursor: position to go on from.
        since: ``earliest``, or seconds back from now, or a time as UNIX seconds.
    """

    subjects: tuple[str, ...] = (">",)
    level: str = "DEBUG"
    mode: Mode = "live"
    interval_ms: int = DEFAULT_INTERVAL_MS
    cursor: Cursor | None = None
    since: "Since | None" = None


@dataclass(frozen=True, slots=True)
class Since:
    """A place in time: ``ago`` seconds before now, or at a moment; neither means the earliest there is."""

    ago: float | None = None
    moment: float | None = None

    def at(self, now: float) -> float:
        """The place as UNIX seconds."""
        if self.ago is not None:
            return now - self.ago
        return 0.0 if self.moment is None else self.moment


RETRY_AFTER_MS: Final = {CloseCode.TOO_MANY: 5_000, CloseCode.UNAVAILABLE: 1_000}
"""Milliseconds after which whoever is refused with such a code may try again, at the earliest."""

_CLOSE_CODES: Final = {
    ErrorCode.UNAUTHORIZED: CloseCode.UNAUTHORIZED,
    ErrorCode.FORBIDDEN: CloseCode.FORBIDDEN,
    ErrorCode.TIMEOUT: CloseCode.TIMEOUT,
    ErrorCode.TOO_MANY: CloseCode.TOO_MANY,
    ErrorCode.UNAVAILABLE: CloseCode.UNAVAILABLE,
    ErrorCode.INTERNAL: CloseCode.INTERNAL_ERROR,
} | dict.fromkeys(_FILTER_ERRORS, CloseCode.BAD_FILTER)


def close_code(error: WireError) -> CloseCode:
    """Code with which a session ends after a client's error."""
    return _CLOSE_CODES.get(error.code, CloseCode.MISUSE)


def read_query(query: str, allowed: Collection[str]) -> dict[str, str]:
    """Read a query into its parameters.

    Args:
        query: of the request, undecoded.
        allowed: parameters that the endpoint has. Any other is refused: a misspelt filter would select
            everything.

    Raises:
        WireError: too long, not UTF-8, a token in it, or a parameter that is unknown or stands twice.
    """
    if len(query) > MAX_QUERY_BYTES:
        raise WireError(
            ErrorCode.BAD_QUERY, f"a query of {len(query)} bytes; at most {MAX_QUERY_BYTES}: use 'subscribe'"
        )
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as error:
        raise WireError(ErrorCode.BAD_QUERY, f"query: {error}") from None
    values: dict[str, str] = {}
    for key, value in pairs:
        if key.lower() in _TOKEN_KEYS:
            raise WireError(
                ErrorCode.BAD_QUERY,
                "a token in the address ends in logs; send 'Authorization: Bearer', a subprotocol or 'auth'",
            )
        if key not in allowed:
            raise WireError(ErrorCode.BAD_QUERY, _unknown(key, allowed))
        if key in values:
            raise WireError(ErrorCode.BAD_QUERY, f"{key} stands twice in the query")
        values[key] = value
    return values


def _unknown(key: str, allowed: Collection[str]) -> str:
    close = get_close_matches(key[:40].lower(), allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown query parameter {key[:40]!r}; {hint}legal are {', '.join(allowed)}"


def parse_query(query: str) -> Request:
    """Read the query of ``/ws``.

    Raises:
        WireError: as ``read_query``, or a value is not legal.
    """
    return request_from(read_query(query, QUERY_KEYS))


def request_from(values: dict[str, str]) -> Request:
    """Read the parameters of a query that say what to follow; others are left to the caller.

    Raises:
        WireError: a value is not legal.
    """
    interval = values.get("interval_ms")
    if interval is not None and not re.fullmatch(r"\d{1,9}", interval, re.ASCII):
        raise WireError(ErrorCode.BAD_INTERVAL, f"interval_ms {interval[:40]!r} is not a whole number")
    subjects = values.get("subjects")
    return _checked(
        subjects.split(",") if subjects is not None else None,
        values.get("level"),
        values.get("mode"),
        values.get("cursor"),
        values.get("since"),
        int(interval) if interval is not None else None,
    )


def request_of(message: Subscribe) -> Request:
    """Read a ``subscribe``.

    Raises:
        WireError: a value is not legal.
    """
    return _checked(
        message.subjects, message.level, message.mode, message.cursor, message.since, message.interval_ms
    )


def _checked(
    subjects: list[str] | None,
    level: str | None,
    mode: str | None,
    cursor: str | None,
    since: str | None,
    interval_ms: int | None,
) -> Request:
    patterns = check_subjects(subjects) if subjects is not None else (">",)
    if not patterns:
        raise WireError(ErrorCode.BAD_SUBJECTS, "subjects: an empty list selects nothing; omit it for all")
    name = "DEBUG" if level is None else level.upper()
    if name not in LEVELS:
        raise WireError(ErrorCode.BAD_LEVEL, f"level {level!r:.40} is none of {', '.join(LEVELS)}")
    if mode is not None and mode not in MODES:
        raise WireError(ErrorCode.BAD_MODE, f"mode {mode!r:.40} is none of {', '.join(MODES)}")
    if interval_ms is not None and not 0 < interval_ms <= MAX_INTERVAL_MS:
        raise WireError(ErrorCode.BAD_INTERVAL, f"interval_ms {interval_ms} is not in 1..{MAX_INTERVAL_MS}")
    if cursor is not None and since is not None:
        raise WireError(ErrorCode.BAD_CURSOR, "cursor and since are two places to start from; send one")
    try:
        place = None if cursor is None else parse_cursor(cursor)
    except ValueError as error:
        raise WireError(ErrorCode.BAD_CURSOR, str(error)) from None
    return Request(
        subjects=patterns,
        level=name,
        mode="live" if mode is None else cast(Mode, mode),
        interval_ms=DEFAULT_INTERVAL_MS if interval_ms is None else interval_ms,
        cursor=place,
        since=None if since is None else _since(since),
    )


def _since(text: str) -> Since:
    if text == "earliest":
        return Since()
    if is_duration(text):
        return Since(ago=parse_duration(text))
    try:
        return Since(moment=parse_time(text).timestamp())
    except (ValueError, OverflowError):
        raise WireError(
            ErrorCode.BAD_SINCE,
            f"since {text[:40]!r} is neither 'earliest', a duration such as 10m, nor an RFC 3339 time",
        ) from None


class State(Enum):
    """Where a session is in its life."""

    WAITING = auto()
    """It has not shown a token yet; nothing is sent to it but ``error`` and ``bye``."""
    FOLLOWING = auto()
    """It has a filter and a place in the log."""
    CLOSING = auto()
    """``bye`` was sent; nothing goes out any more."""


class Action(Enum):
    """What the hub does about a message."""

    PONG = auto()
    START = auto()
    ADMIT = auto()
    RENEW = auto()
    REFUSE = auto()
    IGNORE = auto()


class Session:
    """One client: a filter, and a cursor in the log.

    Args:
        id: for logs and ``welcome``.
        link: where it writes to.
        asked: what it wants to follow.

    Attributes:
        asked: what it asked for last, before its grant narrowed it.
        grant: what it may do; None until it has shown a token.
        due: when its token, or its patience, has to be looked at; UNIX seconds, infinite without a token.
        bucket: its own pace, in mode ``complete`` under a grant that sets a rate.
        feed: the feed that it belongs to; None before it follows and after it ended.
        cursor: its place while it is behind the head; at the head, the feed's place is.
        arrived: True once it has been at the head; before, it catches up with a past it asked for.
        writable: False while its socket takes no more.
        failed: True once code that ran on its behalf has raised; it is ended then, and only then.
        request: what it asked for, while the stream is asked where that begins.
    """

    __slots__ = (
        "arrived", "asked", "bucket", "cursor", "due", "failed", "feed", "grant", "id", "link", "request",
        "send", "state", "variant", "writable",
    )  # fmt: skip

    def __init__(self, id: str, link: Link, asked: Request) -> None:
        self.id = id
        self.asked = asked
        self.grant: Grant | None = None
        self.due = math.inf
        self.bucket: TokenBucket | None = None
        self.link = link
        self.send = link.send
        self.variant = link.variant
        self.state = State.WAITING
        self.feed: Feed | None = None
        self.cursor = 0
        self.arrived = False
        self.writable = True
        self.failed = False
        self.request: Request | None = None

    def __repr__(self) -> str:
        return f"Session({self.id}, {self.state.name}, cursor={self.cursor}, writable={self.writable})"


TABLE: Final[dict[tuple[State, type], Action]] = {
    (State.WAITING, Ping): Action.REFUSE,
    (State.WAITING, Subscribe): Action.REFUSE,
    (State.WAITING, Auth): Action.ADMIT,
    (State.FOLLOWING, Ping): Action.PONG,
    (State.FOLLOWING, Subscribe): Action.START,
    (State.FOLLOWING, Auth): Action.RENEW,
    (State.CLOSING, Ping): Action.IGNORE,
    (State.CLOSING, Subscribe): Action.IGNORE,
    (State.CLOSING, Auth): Action.IGNORE,
}


def decide(state: State, message: ClientMessage) -> Action:
    """What a message means in a state."""
    return TABLE[state, type(message)]
