"""``GET /events``: history as JSON, from the event log and the replay readers that also serve reconnects."""

import asyncio
import re
from dataclasses import dataclass
from typing import Final

from tickertape.contracts import encode
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.batch import Gap
from tickertape.relay.core.fanout.examine import examine
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.hub import Hub
from tickertape.relay.core.session.subscription import (
    QUERY_KEYS,
    Request,
    read_query,
    request_from_parameters,
)
from tickertape.relay.endpoints.page_budget import MAX_PAGE_BYTES, PageBudget
from tickertape.relay.ingest.replay_readers import ReplayReaders

MAX_LIMIT: Final = 1_000
DEFAULT_LIMIT: Final = 100
"""Maximum and default number of events in one page."""

MAX_CHUNKS: Final = 32
"""Maximum replay chunks that one request reads; the client continues with ``more`` and ``cursor``."""

MAX_EXAMINED: Final = 20_000
"""Maximum number of events for which one request evaluates a condition; the client continues likewise."""

_STEP: Final = 500
"""Maximum number of evaluations, about 1 ms, between which other tasks run."""

PAGE_KEYS: Final = ("until", "limit", "order")
"""Query parameters in addition to those of the feed."""

_LIMIT: Final = re.compile(r"\d{1,9}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Query:
    """Parsed query of ``/events``.

    Attributes:
        request: filter and start position, as for the feed.
        until: last position to return; None means the newest event.
        limit: maximum number of events.
        newest_first: whether to read from the end of the range; the page is in stream order in any case.
    """

    request: Request
    until: Cursor | None
    limit: int
    newest_first: bool


def parse(query: str) -> Query:
    """Parse the query string of ``/events``.

    Raises:
        ProtocolError: a parameter is unknown or invalid.
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
    """Page under construction.

    Attributes:
        position: sequence up to which events were read, where the next page continues.
        records: matching events in stream order.
        bytes_left: bytes until the page is full.
        examinations_left: evaluations of a condition until the page ends.
        chunk: replay chunk that was read last.
        chunks_left: replay chunks until the page ends.
        gap: range that the stream no longer has; None if the page is complete.
    """

    def __init__(self, position: int) -> None:
        self.position = position
        self.records: list[Record] = []
        self.bytes_left = MAX_PAGE_BYTES
        self.examinations_left = MAX_EXAMINED
        self.chunk: EventLog | None = None
        self.chunks_left = MAX_CHUNKS
        self.gap: Gap | None = None

    def is_full(self, limit: int) -> bool:
        """Return whether the page has enough events, or has taken enough work."""
        return (
            len(self.records) >= limit
            or self.bytes_left <= 0
            or self.examinations_left <= 0
            or self.chunks_left <= 0
        )

    def next_step(self) -> int:
        """Return how many evaluations to make before other tasks run."""
        return min(_STEP, self.examinations_left)

    def add(self, records: list[Record], *, at_end: bool) -> None:
        self.records = self.records + records if at_end else records + self.records
        self.bytes_left -= sum(len(record.encoded) for record in records)

    def add_gap(self, start: int, end: int) -> None:
        """Record a range of deleted events; ranges are merged, since their events cannot be counted."""
        if self.gap is not None:
            start, end = min(start, self.gap.start), max(end, self.gap.end)
        self.gap = Gap(start, end, "retention")

    def add_missing_ranges(self, log: EventLog, after: int, upto: int) -> None:
        for missing_range in log.missing_ranges_between(after, upto):
            self.add_gap(max(after, missing_range.start), min(upto, missing_range.end))


class History:
    """Paged history of the stream.

    Args:
        hub: hub with the event log and the epoch.
        readers: readers of events that are older than the log.
        budget: budget of the pages in memory.

    Attributes:
        budget: as given.
    """

    def __init__(self, hub: Hub, readers: ReplayReaders, budget: PageBudget | None = None) -> None:
        self._hub = hub
        self._readers = readers
        self.budget = budget or PageBudget()

    async def page(self, query: Query, filter: Filter, now: float) -> bytes:
        """Return one page as JSON with ``events``, ``cursor`` and ``more``.

        The client passes ``cursor`` as the cursor of its next request, or as ``until`` if it reads the newest
        events first. If the stream no longer has events in the range of the page, the page has a ``gap``, as
        on the feed.

        Args:
            query: parsed query.
            filter: filter of the query, restricted to the client's grant.
            now: UNIX seconds.

        Raises:
            ProtocolError: a cursor does not belong to this stream.
            StreamsError: NATS is unreachable.
        """
        if filter.where is None:
            return await self._read_until_stable(query, filter, now)
        # Shared with the feeds and the other pages that have the same condition.
        shared = filter.where = self._hub.conditions.use(filter.where, "")
        try:
            return await self._read_until_stable(query, filter, now)
        finally:
            self._hub.conditions.release(shared, "")

    async def _read_until_stable(self, query: Query, filter: Filter, now: float) -> bytes:
        # The stream can be replaced while a part of the page is read from it. Positions found before then are
        # meaningless after it, so the page is read again; a cursor of the query is then invalid.
        while True:
            generation = self._hub.generation
            page = await self._read_page(query, filter, now)
            if generation == self._hub.generation:
                return page

    async def _read_page(self, query: Query, filter: Filter, now: float) -> bytes:
        hub = self._hub
        # Fixed before the page is read, so that a busy stream cannot extend it.
        end = hub.log.head if query.until is None else min(await self._resolve(query.until), hub.log.head)
        if query.request.cursor is not None:
            start = await self._resolve(query.request.cursor)
        elif query.request.since is not None:
            moment = query.request.since.at(self._hub.stats.unix(now))
            in_log = hub.log.covers(moment)
            start = hub.log.position_at(moment) if in_log else await self._readers.position_at(moment)
        else:
            start = await self._readers.position_at(0)
        if query.newest_first:
            page = await self._read_backward(filter, start, end, query.limit)
            more = page.position > start
        else:
            page = await self._read_forward(filter, start, end, query.limit)
            more = page.position < end
        gap = None if page.gap is None else page.gap.message(hub.epoch)
        events = [record.encoded for record in page.records]
        return encode.encode_history_page(events, hub.fanout.cursor(page.position), more=more, gap=gap)

    async def _resolve(self, cursor: Cursor) -> int:
        """Return the sequence of a cursor.

        Raises:
            ProtocolError: the cursor belongs to another stream, or to a part that the stream has lost.
            StreamsError: NATS is unreachable.
        """
        if cursor.epoch != self._hub.epoch:
            raise ProtocolError(ErrorCode.BAD_CURSOR, f"cursor {cursor} belongs to another stream")
        # A cursor ahead of this relay may come from another one; a page after it is empty for now.
        if cursor.sequence <= self._hub.log.head:
            valid = self._hub.sessions.check_cursor(cursor)
            if valid is None:
                valid = not await self._readers.is_stale_cursor(cursor, {})
            if not valid:
                raise ProtocolError(
                    ErrorCode.BAD_CURSOR, f"cursor {cursor} belongs to a part that the stream has lost"
                )
        return cursor.sequence

    async def _read_forward(self, filter: Filter, start: int, end: int, limit: int) -> "_Page":
        page = _Page(start)
        while page.position < end and not page.is_full(limit):
            # Looked up for each part, since the log evicts events and its head rises during the reads.
            log = await self._log_after(page.position, page)
            # A chunk that begins later: the stream has deleted what lies between.
            if page.position < log.floor:
                page.add_gap(page.position, min(log.floor, end))
                page.position = min(log.floor, end)
                continue
            before, upto = page.position, min(end, log.head)
            if filter.where is not None:
                upto, spent = examine(log, filter, before, upto, page.next_step())
                page.examinations_left -= spent
            records, page.position = log.select(
                filter, before, upto, limit - len(page.records), page.bytes_left
            )
            page.add(records, at_end=True)
            page.add_missing_ranges(log, before, page.position)
            if filter.where is not None:
                await asyncio.sleep(0)
        return page

    async def _read_backward(self, filter: Filter, start: int, end: int, limit: int) -> "_Page":
        page = _Page(end)
        while page.position > start and not page.is_full(limit):
            # The log or chunk that contains the event right before the position.
            log = await self._log_after(page.position - 1, page)
            if log.floor >= page.position:
                page.add_gap(start, page.position)  # the stream no longer has older events
                page.position = start
                break
            # The position moves towards the start: everything after it, up to ``end``, has been read.
            before, begin = page.position, max(start, log.floor)
            if filter.where is not None:
                begin, spent = examine(log, filter, begin, before, page.next_step(), newest_first=True)
                page.examinations_left -= spent
            records, page.position = log.select_last(
                filter, begin, before, limit - len(page.records), page.bytes_left
            )
            page.add(records, at_end=False)
            page.add_missing_ranges(log, page.position, before)
            if filter.where is not None:
                await asyncio.sleep(0)
        return page

    async def _log_after(self, position: int, page: "_Page") -> EventLog:
        """Return a log with the events after a position: the event log, or a replay chunk."""
        # Chunks are shared with returning clients, so a cached one costs NATS nothing.
        log = self._hub.log
        if position >= log.floor:
            return log
        chunk = await self._readers.chunk_after(position)
        if chunk is not page.chunk:
            page.chunk = chunk
            page.chunks_left -= 1
        return chunk
