"""``GET /events``: history as JSON, from the log and the same readers that serve clients who come back."""

import re
from dataclasses import dataclass
from typing import Final

from tickertape.contracts import encode
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.batch import Gap
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.hub import Hub
from tickertape.relay.core.session.subscription import (
    QUERY_KEYS,
    Request,
    read_query,
    request_from_parameters,
)
from tickertape.relay.ingest.replay_readers import ReplayReaders

MAX_LIMIT: Final = 1_000
DEFAULT_LIMIT: Final = 100
MAX_PAGE_BYTES: Final = 4 * 1024 * 1024
"""Bytes of events in one page, from which it ends early; ``more`` says so."""

MAX_CHUNKS: Final = 32
"""Stretches that one request may read; ``more`` and ``cursor`` let the client go on."""


PAGE_KEYS: Final = ("until", "limit", "order")
"""Parameters beside those of the feed."""

_LIMIT: Final = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for.

    Attributes:
        request: filter and start, as for the feed.
        until: last position; None means the newest.
        limit: most events.
        newest_first: whether they are taken from the end; they are in stream order all the same.
    """

    request: Request
    until: Cursor | None
    limit: int
    newest_first: bool


def parse(query: str) -> Query:
    """Read the query of ``/events``.

    Raises:
        ProtocolError: a value is not legal.
    """
    values = read_query(query, (*QUERY_KEYS, *PAGE_KEYS))
    limit, order = values.get("limit", str(DEFAULT_LIMIT)), values.get("order", "oldest")
    try:
        until = parse_cursor(values["until"]) if "until" in values else None
    except ValueError as error:
        raise ProtocolError(ErrorCode.BAD_CURSOR, str(error)) from None
    if not _LIMIT.fullmatch(limit) or not 1 <= int(limit) <= MAX_LIMIT:
        raise ProtocolError(ErrorCode.BAD_QUERY, f"limit {limit!r:.20} is not in 1..{MAX_LIMIT}")
    if order not in ("oldest", "newest"):
        raise ProtocolError(ErrorCode.BAD_QUERY, f"order {order!r:.20} is neither oldest nor newest")
    return Query(request_from_parameters(values), until, int(limit), newest_first=order == "newest")


class _Page:
    """What was gathered; ``place`` is where the next page begins, or ends when it is read backwards."""

    def __init__(self, place: int) -> None:
        self.place = place
        self.found: list[Record] = []
        self.room = MAX_PAGE_BYTES
        self.gap: Gap | None = None

    def add(self, some: list[Record], *, at_end: bool) -> None:
        self.found = self.found + some if at_end else some + self.found
        self.room -= sum(len(record.encoded) for record in some)

    def lost(self, start: int, end: int) -> None:
        """Note that events in a range are gone; ranges are merged, since nobody can count them anyway."""
        if self.gap is not None:
            start, end = min(start, self.gap.start), max(end, self.gap.end)
        self.gap = Gap(start, end, "retention")

    def note_holes(self, log: EventLog, after: int, upto: int) -> None:
        for hole in log.missing_ranges_between(after, upto):
            self.lost(max(after, hole.start), min(upto, hole.end))


class History:
    """Pages through the stream.

    Args:
        hub: its log and epoch.
        readers: for what is older.
    """

    def __init__(self, hub: Hub, readers: ReplayReaders) -> None:
        self._hub = hub
        self._readers = readers

    async def page(self, query: Query, wanted: Filter, now: float) -> bytes:
        """One page, as JSON: ``events``, ``cursor`` to go on from (or ``until``, newest first), ``more``.

        Where the stream has let go of events in the page's range, it also has ``gap``, as on the feed.

        Args:
            query: what is asked for.
            wanted: its filter, cut to what the client may see.
            now: UNIX seconds.

        Raises:
            ProtocolError: a cursor of another stream, or ahead of it.
            StreamsError: NATS is unreachable.
        """
        hub = self._hub
        end = hub.log.head if query.until is None else min(await self._own(query.until), hub.log.head)
        if query.request.cursor is not None:
            start = await self._own(query.request.cursor)
        elif query.request.since is not None:
            moment = query.request.since.at(now)
            reaches = hub.log.reaches(moment)
            start = hub.log.after_time(moment) if reaches else await self._readers.position_at(moment)
        else:
            start = await self._readers.position_at(0)
        if query.newest_first:
            page = await self._backward(wanted, start, end, query.limit)
            more = page.place > start
        else:
            page = await self._forward(wanted, start, end, query.limit)
            more = page.place < end
        gap = None if page.gap is None else page.gap.message(hub.epoch)
        events = [record.encoded for record in page.found]
        return encode.encode_history_page(events, hub.fanout.cursor(page.place), more=more, gap=gap)

    async def _own(self, cursor: Cursor) -> int:
        """Return the sequence of a cursor of this stream.

        Raises:
            ProtocolError: it is of another stream, or of a part that this one has lost.
            StreamsError: NATS is unreachable.
        """
        if cursor.epoch != self._hub.epoch:
            raise ProtocolError(ErrorCode.BAD_CURSOR, f"cursor {cursor} is of another stream")
        if cursor.sequence <= self._hub.log.head:
            valid = self._hub.sessions.knows(cursor)
            if valid is None:
                valid = not await self._readers.is_stale_cursor(cursor, {})
            if not valid:
                raise ProtocolError(
                    ErrorCode.BAD_CURSOR, f"cursor {cursor} is of a part that the stream lost"
                )
        return cursor.sequence

    async def _forward(self, wanted: Filter, place: int, end: int, limit: int) -> "_Page":
        page = _Page(place)
        for _ in range(MAX_CHUNKS):
            if page.place >= end or len(page.found) >= limit or page.room <= 0:
                break
            log = await self._source(page.place)
            if page.place < log.floor:
                page.lost(page.place, min(log.floor, end))
                page.place = min(log.floor, end)
                continue
            before, upto = page.place, min(end, log.head)
            some, page.place = log.select(wanted, before, upto, limit - len(page.found), page.room)
            page.add(some, at_end=True)
            page.note_holes(log, before, page.place)
        return page

    async def _backward(self, wanted: Filter, start: int, end: int, limit: int) -> "_Page":
        page = _Page(end)
        for _ in range(MAX_CHUNKS):
            if page.place <= start or len(page.found) >= limit or page.room <= 0:
                break
            log = await self._source(page.place - 1)
            if log.floor >= page.place:
                page.lost(start, page.place)  # the stream has let go of what lies further back
                page.place = start
                break
            before, begin = page.place, max(start, log.floor)
            some, page.place = log.select_last(wanted, begin, before, limit - len(page.found), page.room)
            page.add(some, at_end=False)
            page.note_holes(log, page.place, before)
        return page

    async def _source(self, place: int) -> EventLog:
        log = self._hub.log
        return log if place >= log.floor else await self._readers.chunk_after(place)
