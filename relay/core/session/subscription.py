"""What a client asks to follow, read from a query or from ``subscribe``, and checked."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, cast, get_args
from urllib.parse import parse_qsl

from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.contracts.events import parse_time
from tickertape.contracts.messages import (
    DEFAULT_INTERVAL_MS,
    MAX_QUERY_BYTES,
    Mode,
    ProtocolError,
    Subscribe,
    check_subjects,
)
from tickertape.contracts.subjects import LEVELS

from tickertape.durations import is_duration, parse_duration

MODES: Final = get_args(Mode)
MAX_INTERVAL_MS: Final = 60_000
QUERY_KEYS: Final = ("subjects", "level", "mode", "cursor", "since", "interval_ms")
"""Parameters of the feed's query; history has some more."""

_MAX_QUERY_FIELDS: Final = 32
_TOKEN_KEYS: Final = frozenset({"token", "access_token", "jwt", "authorization"})


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


def read_query(query: str, allowed: Collection[str]) -> dict[str, str]:
    """Read a query into its parameters.

    Args:
        query: of the request, undecoded.
        allowed: parameters that the endpoint has. Any other is refused: a misspelt filter would select
            everything.

    Raises:
        ProtocolError: too long, not UTF-8, a token in it, or a parameter that is unknown or stands twice.
    """
    if len(query) > MAX_QUERY_BYTES:
        raise ProtocolError(
            ErrorCode.BAD_QUERY, f"a query of {len(query)} bytes; at most {MAX_QUERY_BYTES}: use 'subscribe'"
        )
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as error:
        raise ProtocolError(ErrorCode.BAD_QUERY, f"query: {error}") from None
    values: dict[str, str] = {}
    for key, value in pairs:
        if key.lower() in _TOKEN_KEYS:
            raise ProtocolError(
                ErrorCode.BAD_QUERY,
                "a token in the address ends in logs; send 'Authorization: Bearer', a subprotocol or 'auth'",
            )
        if key not in allowed:
            raise ProtocolError(ErrorCode.BAD_QUERY, _unknown(key, allowed))
        if key in values:
            raise ProtocolError(ErrorCode.BAD_QUERY, f"{key} stands twice in the query")
        values[key] = value
    return values


def _unknown(key: str, allowed: Collection[str]) -> str:
    close = get_close_matches(key[:40].lower(), allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"unknown query parameter {key[:40]!r}; {hint}legal are {', '.join(allowed)}"


def parse_query(query: str) -> Request:
    """Read the query of ``/ws``.

    Raises:
        ProtocolError: as ``read_query``, or a value is not legal.
    """
    return request_from_parameters(read_query(query, QUERY_KEYS))


def request_from_parameters(values: dict[str, str]) -> Request:
    """Read the parameters of a query that say what to follow; others are left to the caller.

    Raises:
        ProtocolError: a value is not legal.
    """
    interval = values.get("interval_ms")
    if interval is not None and not re.fullmatch(r"\d{1,9}", interval, re.ASCII):
        raise ProtocolError(ErrorCode.BAD_INTERVAL, f"interval_ms {interval[:40]!r} is not a whole number")
    subjects = values.get("subjects")
    return _checked(
        subjects.split(",") if subjects is not None else None,
        values.get("level"),
        values.get("mode"),
        values.get("cursor"),
        values.get("since"),
        int(interval) if interval is not None else None,
    )


def request_from_subscribe(message: Subscribe) -> Request:
    """Read a ``subscribe``.

    Raises:
        ProtocolError: a value is not legal.
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
        raise ProtocolError(
            ErrorCode.BAD_SUBJECTS, "subjects: an empty list selects nothing; omit it for all"
        )
    name = "DEBUG" if level is None else level.upper()
    if name not in LEVELS:
        raise ProtocolError(ErrorCode.BAD_LEVEL, f"level {level!r:.40} is none of {', '.join(LEVELS)}")
    if mode is not None and mode not in MODES:
        raise ProtocolError(ErrorCode.BAD_MODE, f"mode {mode!r:.40} is none of {', '.join(MODES)}")
    if interval_ms is not None and not 0 < interval_ms <= MAX_INTERVAL_MS:
        raise ProtocolError(
            ErrorCode.BAD_INTERVAL, f"interval_ms {interval_ms} is not in 1..{MAX_INTERVAL_MS}"
        )
    if cursor is not None and since is not None:
        raise ProtocolError(ErrorCode.BAD_CURSOR, "cursor and since are two places to start from; send one")
    try:
        place = None if cursor is None else parse_cursor(cursor)
    except ValueError as error:
        raise ProtocolError(ErrorCode.BAD_CURSOR, str(error)) from None
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
        raise ProtocolError(
            ErrorCode.BAD_SINCE,
            f"since {text[:40]!r} is neither 'earliest', a duration such as 10m, nor an RFC 3339 time",
        ) from None
