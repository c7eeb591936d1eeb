"""``GET /events``: history as JSON, from the log and the same readers that serve clients who come back."""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlencode

from contracts.codes import ErrorCode
from contracts.wire import WireError, format_cursor, parse_cursor
from relay.core.filters import Filter
from relay.core.hub import Hub
from relay.core.log import Log, Record
from relay.core.session import Request, parse_query
from relay.readers import Readers

MAX_LIMIT: Final = 1_000
DEFAULT_LIMIT: Final = 100
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of events in one page, from which it ends early; ``more`` says so."""

MAX_STRETCHES: Final = 32
"""Stretches that one request may read; ``more`` and ``cursor`` let the client go on."""


_LIMIT: Final = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for.

    Attributes:
        request: filter and start, as for the feed.
        until: last sequence, with its epoch; None means the newest.
        limit: most events.
        newest_first: whether they are taken from the end; they are in stream order all the same.
    """

    request: Request
    until: tuple[str, int] | None
    limit: int
    newest_first: bool


def parse(query: str) -> Query:
    """Read the query of ``/events``.

    Raises:
        WireError: a value is not legal.
    """
    own = {"until": "", "limit": str(DEFAULT_LIMIT), "order": "oldest"}
    seen: set[str] = set()
    rest = []
    try:
        for key, value in parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=32):
            if key in own:
                if key in seen:
                    raise WireError(ErrorCode.BAD_QUERY, f"{key} stands twice in the query")
                seen.add(key)
                own[key] = value
            else:
                rest.append((key, value))
    except ValueError as error:
        raise WireError(ErrorCode.BAD_QUERY, str(error)) from None
    try:
        until = parse_cursor(own["until"]) if "until" in seen else None
    except ValueError as error:
        raise WireError(ErrorCode.BAD_CURSOR, str(error)) from None
    if not _LIMIT.fullmatch(own["limit"]) or not 1 <= int(own["limit"]) <= MAX_LIMIT:
        raise WireError(ErrorCode.BAD_QUERY, f"limit {own['limit']!r:.20} is not in 1..{MAX_LIMIT}")
    order = own["order"]
    if order not in ("oldest", "newest"):
        raise WireError(ErrorCode.BAD_QUERY, f"order {order!r:.20} is neither oldest nor newest")
    return Query(parse_query(urlencode(rest)), until, int(own["limit"]), newest_first=order == "newest")


class History:
    """Pages through the stream.

    Args:
        hub: its log and epoch.
        readers: for what is older.
    """

    def __init__(self, hub: Hub, readers: Readers) -> None:
        self._hub = hub
        self._readers = readers

    async def page(self, query: Query, now: float) -> bytes:
        """One page, as JSON: ``events``, ``cursor`` to go on from (or ``until``, newest first), ``more``.

        Raises:
            WireError: a cursor of another stream, or ahead of it.
            StreamsError: NATS is away.
        """
        hub = self._hub
        wanted = Filter(query.request.subjects, query.request.level)
        end = hub.log.head if query.until is None else min(self._own(query.until), hub.log.head)
        if query.request.cursor is not None:
            start = self._own(query.request.cursor)
        elif query.request.since is not None:
            moment = query.request.since.at(now)
            reaches = hub.log.reaches(moment)
            start = hub.log.after_time(moment) if reaches else await self._readers.place_at(moment)
        else:
            start = await self._readers.place_at(0)
        if query.newest_first:
            found, place = await self._backward(wanted, start, end, query.limit)
            more = place > start
        else:
            found, place = await self._forward(wanted, start, end, query.limit)
            more = place < end
        return b'{"events":[%b],"cursor":"%b","more":%b}' % (
            b",".join(record.item for record in found),
            format_cursor(hub.epoch, place).encode(),
            b"true" if more else b"false",
        )

    def _own(self, cursor: tuple[str, int]) -> int:
        if cursor[0] != self._hub.epoch:
            raise WireError(ErrorCode.BAD_CURSOR, f"cursor {format_cursor(*cursor)} is of another stream")
        return cursor[1]

    async def _forward(self, wanted: Filter, place: int, end: int, limit: int) -> tuple[list[Record], int]:
        found: list[Record] = []
        room = MAX_PAGE_BYTES
        for _ in range(MAX_STRETCHES):
            if place >= end or len(found) >= limit or room <= 0:
                break
            log = await self._source(place)
            upto = min(end, log.head)
            some, place = log.select(wanted, place, upto, limit - len(found), room)
            found += some
            room -= sum(len(record.item) for record in some)
        return found, place

    async def _backward(self, wanted: Filter, start: int, end: int, limit: int) -> tuple[list[Record], int]:
        found: list[Record] = []
        room = MAX_PAGE_BYTES
        for _ in range(MAX_STRETCHES):
            if room <= 0 or end <= start or len(found) >= limit:
                break
            log = await self._source(end - 1)
            if log.floor >= end:
                return found, start  # the stream has let go of what lies further back
            begin = max(start, log.floor)
            some, _ = log.select(wanted, begin, end, len(log), log.max_bytes)
            taken: list[Record] = []
            while some and len(taken) + len(found) < limit and room > 0:
                taken.append(some.pop())
                room -= len(taken[-1].item)
            found = taken[::-1] + found
            end = taken[-1].seq - 1 if some and taken else begin
        return found, end

    async def _source(self, place: int) -> Log:
        log = self._hub.log
        return log if place >= log.floor else await self._readers.stretch(place)
