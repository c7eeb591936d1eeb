"""Subscription requests of clients, parsed from a query or a ``subscribe`` message, and validated."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, cast, get_args
from urllib.parse import parse_qsl

from tickertape.contracts.client_messages import Subscribe, check_subjects
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.contracts.events import parse_time
from tickertape.contracts.messages import DEFAULT_INTERVAL_MS, MAX_QUERY_BYTES, Mode, ProtocolError
from tickertape.contracts.subjects import LEVELS
from tickertape.relay.core.where.condition import Condition
from tickertape.relay.core.where.tokens import WhereError

from tickertape.durations import is_duration, parse_duration

MODES: Final = get_args(Mode)
MAX_INTERVAL_MS: Final = 60_000
"""Maximum interval between two batches in mode ``latest``, in milliseconds."""

QUERY_KEYS: Final = ("subjects", "level", "where", "mode", "cursor", "since", "interval_ms")
"""Query parameters of the feed; the history endpoint has additional ones."""

_MAX_QUERY_FIELDS: Final = 32
_TOKEN_KEYS: Final = frozenset({"token", "access_token", "jwt", "authorization"})


@dataclass(frozen=True, slots=True)
class Request:
    """Validated subscription request.

    Attributes:
        subjects: valid patterns; ``>`` if the client requested none.
        level: minimum level.
        mode: delivery mode.
        interval_ms: minimum milliseconds between two batches in mode ``latest``.
        cursor: cursor to resume from, or None.
        since: start time, or None.
        snapshot: whether a session that resumes from ``cursor`` lacks a snapshot as of that position.
        where: condition that log events have to fulfil, or None.
    """

    subjects: tuple[str, ...] = (">",)
    level: str = "DEBUG"
    mode: Mode = "live"
    interval_ms: int = DEFAULT_INTERVAL_MS
    cursor: Cursor | None = None
    since: "Since | None" = None
    snapshot: bool = False
    where: Condition | None = None


@dataclass(frozen=True, slots=True)
class Since:
    """Start time: ``ago`` seconds before now, or ``moment`` in UNIX seconds; with neither, the earliest."""

    ago: float | None = None
    moment: float | None = None

    def at(self, now: float) -> float:
        """Return the time as UNIX seconds."""
        if self.ago is not None:
            return now - self.ago
        return 0.0 if self.moment is None else self.moment


def read_query(query: str, allowed: Collection[str]) -> dict[str, str]:
    """Parse a query into its parameters.

    Args:
        query: undecoded query of the request.
        allowed: parameters of the endpoint. Others are rejected, since a misspelled filter would select all.

    Raises:
        ProtocolError: the query is too long, is not UTF-8 or contains a token, or a parameter is unknown or
            repeated.
    """
    if len(query) > MAX_QUERY_BYTES:
        raise ProtocolError(
            ErrorCode.BAD_QUERY,
            f"the query has {len(query)} bytes, more than {MAX_QUERY_BYTES}; use 'subscribe'",
        )
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as error:
        raise ProtocolError(ErrorCode.BAD_QUERY, f"query: {error}") from None
    values: dict[str, str] = {}
    for key, value in pairs:
        # Misuse, not an invalid token: the client would send its next token here as well.
        if key.lower() in _TOKEN_KEYS:
            raise ProtocolError(
                ErrorCode.BAD_QUERY,
                "tokens in URLs end up in logs; send 'Authorization: Bearer', a subprotocol or 'auth'",
            )
        if key not in allowed:
            raise ProtocolError(ErrorCode.BAD_QUERY, _unknown(key, allowed))
        if key in values:
            raise ProtocolError(ErrorCode.BAD_QUERY, f"query parameter {key} is repeated")
        values[key] = value
    return values


def _unknown(key: str, allowed: Collection[str]) -> str:
    similar = get_close_matches(key[:40].lower(), allowed, n=1, cutoff=0.5)
    hint = f"did you mean {similar[0]!r}? " if similar else ""
    return f"unknown query parameter {key[:40]!r}; {hint}allowed are {', '.join(allowed)}"


def parse_query(query: str) -> Request:
    """Parse the query of ``/ws``.

    Raises:
        ProtocolError: see ``read_query``; or a value is invalid.
    """
    return request_from_parameters(read_query(query, QUERY_KEYS))


def request_from_parameters(values: dict[str, str]) -> Request:
    """Build a request from query parameters, and ignore those of other endpoints.

    Raises:
        ProtocolError: a value is invalid.
    """
    interval = values.get("interval_ms")
    # ``re.ASCII``, because ``\d`` and ``int`` accept the digits of all scripts.
    if interval is not None and not re.fullmatch(r"\d{1,9}", interval, re.ASCII):
        raise ProtocolError(ErrorCode.BAD_INTERVAL, f"interval_ms {interval[:40]!r} is not an integer")
    subjects = values.get("subjects")
    return _validate(
        subjects.split(",") if subjects is not None else None,
        values.get("level"),
        values.get("mode"),
        values.get("cursor"),
        values.get("since"),
        int(interval) if interval is not None else None,
        values.get("where"),
    )


def request_from_subscribe(message: Subscribe) -> Request:
    """Build a request from a ``subscribe`` message.

    Raises:
        ProtocolError: a value is invalid.
    """
    return _validate(
        message.subjects,
        message.level,
        message.mode,
        message.cursor,
        message.since,
        message.interval_ms,
        message.where,
    )


def _validate(
    subjects: list[str] | None,
    level: str | None,
    mode: str | None,
    cursor: str | None,
    since: str | None,
    interval_ms: int | None,
    where: str | None,
) -> Request:
    patterns = check_subjects(subjects) if subjects is not None else (">",)
    # A feed that nothing matches would look like a quiet stream.
    if not patterns:
        raise ProtocolError(
            ErrorCode.BAD_SUBJECTS, "subjects: an empty list selects nothing; omit it to select all"
        )
    name = "DEBUG" if level is None else level.upper()
    if name not in LEVELS:
        raise ProtocolError(ErrorCode.BAD_LEVEL, f"level {level!r:.40} is not one of {', '.join(LEVELS)}")
    if mode is not None and mode not in MODES:
        raise ProtocolError(ErrorCode.BAD_MODE, f"mode {mode!r:.40} is not one of {', '.join(MODES)}")
    if interval_ms is not None and not 0 < interval_ms <= MAX_INTERVAL_MS:
        raise ProtocolError(
            ErrorCode.BAD_INTERVAL, f"interval_ms {interval_ms} is not in 1..{MAX_INTERVAL_MS}"
        )
    if cursor is not None and since is not None:
        raise ProtocolError(ErrorCode.BAD_CURSOR, "cursor and since are mutually exclusive; send only one")
    try:
        position = None if cursor is None else parse_cursor(cursor)
    except ValueError as error:
        raise ProtocolError(ErrorCode.BAD_CURSOR, str(error)) from None
    try:
        condition = None if where is None else Condition(where)
    except WhereError as error:
        raise ProtocolError(ErrorCode.BAD_WHERE, f"where: {error}") from None
    return Request(
        subjects=patterns,
        level=name,
        mode="live" if mode is None else cast(Mode, mode),
        interval_ms=DEFAULT_INTERVAL_MS if interval_ms is None else interval_ms,
        cursor=position,
        since=None if since is None else _parse_since(since),
        where=condition,
    )


def _parse_since(text: str) -> Since:
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
