"""Pages of history from the log and chunks of the stream, in both directions, without duplicates."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.subscription import Request, Since
from tickertape.relay.core.where import conditions as conditions_module
from tickertape.relay.endpoints import history as history_module
from tickertape.relay.endpoints.history import History, Query, parse
from tickertape.relay.ingest.replay_readers import ReplayReaders

from tests.support.clients.fake_link import NOW, Stage, untimed


class FakeReplayReaders(ReplayReaders):
    """Replay readers of the stored events of a stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.chunks_read: list[int] = []

    async def chunk_after(self, position: int) -> EventLog:
        """Return the chunk of a position with the events that the stream still has."""
        number = position // CHUNK_SEQUENCES
        self.chunks_read.append(number)
        chunk = EventLog(CHUNK_SEQUENCES, 1 << 40)
        chunk.reset(max(number * CHUNK_SEQUENCES, self._stage.first))
        for seq, subject, event, stored_ns in self._stage.stored:
            if chunk.floor < seq <= (number + 1) * CHUNK_SEQUENCES:
                chunk.append(self._stage.hub.make_record(seq, subject, event, stored_ns))
        chunk.advance(min((number + 1) * CHUNK_SEQUENCES, self._stage.hub.log.head))
        return chunk

    async def position_at(self, moment: float) -> int:
        """Return the position before the first event stored at this time or later."""
        later = (seq for seq, _, _, stored_ns in self._stage.stored if stored_ns >= moment * 1e9)
        return max(self._stage.first, next(later, self._stage.hub.log.head + 1) - 1)


class HistoryClient:
    """Client that fetches pages of history."""

    def __init__(self, last: int, first: int = 0, log_events: int = 20) -> None:
        self.stage = Stage(stream=True, log_events=log_events)
        for seq in range(1, last + 1):
            self.stage.now = NOW + seq
            self.stage.log(seq, "error" if seq % 10 == 0 else "info")
        self.stage.first = first
        self.readers = FakeReplayReaders(self.stage)
        self.history = History(self.stage.hub, self.readers)

    def fetch(self, query: str) -> dict[str, Any]:
        """Return one page."""
        parsed_query = parse(query)
        request = parsed_query.request
        event_filter = Filter(request.subjects, request.level, where=request.where)
        page: dict[str, Any] = orjson.loads(
            untimed(asyncio.run(self.history.page(parsed_query, event_filter, self.stage.now)))
        )
        return page

    def seqs(self, query: str) -> list[int]:
        """Return the sequences in one page."""
        return [item["seq"] for item in self.fetch(query)["events"]]


def test_an_empty_query_returns_the_first_page() -> None:
    """An empty query returns the hundred oldest events."""
    assert parse("") == Query(Request(), None, 100, newest_first=False)
    client = HistoryClient(300)
    page = client.fetch("")
    assert [item["seq"] for item in page["events"]] == list(range(1, 101))
    assert (page["cursor"], page["more"]) == ("e-100", True)


def test_a_query_extends_that_of_a_feed() -> None:
    """A query has the filter and start of a feed, and an end, a limit and an order in addition."""
    assert parse("subjects=log.%3E&level=warn&since=10m&until=e-9&limit=5&order=newest") == Query(
        Request(("log.>",), "WARN", since=Since(ago=600.0)), Cursor("e", 9), 5, newest_first=True
    )


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("limit=0", ErrorCode.BAD_QUERY),
        ("limit=1001", ErrorCode.BAD_QUERY),
        ("limit=-1", ErrorCode.BAD_QUERY),
        ("limit=", ErrorCode.BAD_QUERY),
        ("limit=%D9%A1", ErrorCode.BAD_QUERY),
        ("order=random", ErrorCode.BAD_QUERY),
        ("limit=" + "1" * 5_000, ErrorCode.BAD_QUERY),
        ("limit=5&limit=5", ErrorCode.BAD_QUERY),
        ("until=nonsense", ErrorCode.BAD_CURSOR),
        ("until=", ErrorCode.BAD_CURSOR),
        ("subjects=%FF", ErrorCode.BAD_QUERY),
        ("&".join(f"k{number}=1" for number in range(40)), ErrorCode.BAD_QUERY),
        ("level=LOUD", ErrorCode.BAD_LEVEL),
        ("cursor=nonsense", ErrorCode.BAD_CURSOR),
        ("token=abc", ErrorCode.BAD_QUERY),
    ],
)
def test_a_bad_query_is_rejected(query: str, code: ErrorCode) -> None:
    """An invalid query is an error with a code and a message of one line."""
    with pytest.raises(ProtocolError) as caught:
        parse(query)
    assert caught.value.code is code
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("key", "meant"), [("subject", "subjects"), ("limits", "limit"), ("untill", "until")]
)
def test_an_unknown_key_is_rejected_with_the_closest_match(key: str, meant: str) -> None:
    """An unknown key is an error that suggests the closest key of history."""
    with pytest.raises(ProtocolError, match=f"did you mean '{meant}'") as caught:
        parse(f"{key}=5")
    assert caught.value.code is ErrorCode.BAD_QUERY


@pytest.mark.parametrize("query", ["cursor=f-3", "until=f-3"])
def test_a_cursor_of_another_stream_is_rejected(query: str) -> None:
    """A cursor of another stream is an error, since its sequences do not belong to this one."""
    with pytest.raises(ProtocolError, match="another stream"):
        HistoryClient(30).fetch(query)


class ReplacedStreamReaders(FakeReplayReaders):
    """Replay readers during whose first read the stream is replaced by one with three events."""

    def __init__(self, stage: Stage) -> None:
        super().__init__(stage)
        self.replaced = False

    async def chunk_after(self, position: int) -> EventLog:
        """Return a chunk; before the first, replace the stream."""
        if not self.replaced:
            self.replaced = True
            chunk = await super().chunk_after(position)
            self._stage.stored.clear()
            self._stage.hub.begin("f", 0, None)
            for seq in range(1, 4):
                self._stage.log(seq, "error")
            return chunk
        return await super().chunk_after(position)


@pytest.mark.parametrize("query", ["cursor=e-10", "until=e-250", "cursor=e-10&order=newest&until=e-200"])
def test_a_stream_replaced_during_a_read_invalidates_cursors(query: str) -> None:
    """A cursor of the query is rejected if its stream is replaced while the page is read."""
    client = HistoryClient(300)
    client.readers = ReplacedStreamReaders(client.stage)
    client.history = History(client.stage.hub, client.readers)
    with pytest.raises(ProtocolError, match="another stream"):
        client.fetch(query)


@pytest.mark.parametrize("query", ["", "order=newest&since=earliest"])
def test_a_stream_replaced_during_a_read_is_read_again(query: str) -> None:
    """No page contains events of two streams, or a cursor that does not belong to its events."""
    client = HistoryClient(300)
    client.readers = ReplacedStreamReaders(client.stage)
    client.history = History(client.stage.hub, client.readers)
    page = client.fetch(query)
    assert sorted(item["seq"] for item in page["events"]) == [1, 2, 3]
    assert page["cursor"].startswith("f-")


def test_events_in_the_log_are_not_read_from_the_stream() -> None:
    """Events in the log are not read from the stream, neither forward nor backward."""
    client = HistoryClient(100)
    assert client.seqs("cursor=e-90") == list(range(91, 101))
    assert client.seqs("order=newest&limit=10") == list(range(91, 101))
    assert client.readers.chunks_read == []


def test_a_page_spans_chunks_and_the_log() -> None:
    """A page that spans several chunks and the log has each event once and in order."""
    client = HistoryClient(CHUNK_SEQUENCES + 100)
    page = client.fetch(f"cursor=e-{CHUNK_SEQUENCES - 5}&limit=1000")
    assert [item["seq"] for item in page["events"]] == list(range(CHUNK_SEQUENCES - 4, CHUNK_SEQUENCES + 101))
    assert (page["cursor"], page["more"]) == (f"e-{CHUNK_SEQUENCES + 100}", False)
    assert client.readers.chunks_read == [0, 1]


def test_newest_pages_start_at_the_end() -> None:
    """A page of the newest events is in stream order; its cursor is the ``until`` of the page before it."""
    client = HistoryClient(100)
    page = client.fetch("order=newest&limit=30")
    assert [item["seq"] for item in page["events"]] == list(range(71, 101))
    assert (page["cursor"], page["more"]) == ("e-70", True)
    page = client.fetch("order=newest&limit=1000&until=e-70")
    assert [item["seq"] for item in page["events"]] == list(range(1, 71))
    assert (page["cursor"], page["more"]) == ("e-0", False)


def test_until_limits_a_page() -> None:
    """A page ends at ``until``; one that is ahead of the relay means the newest event."""
    client = HistoryClient(100)
    assert client.seqs("cursor=e-50&until=e-55") == [51, 52, 53, 54, 55]
    assert client.seqs("cursor=e-95&until=e-999") == [96, 97, 98, 99, 100]
    assert client.fetch("cursor=e-60&until=e-55") == {"events": [], "cursor": "e-60", "more": False}


def test_a_filter_is_applied() -> None:
    """A page is filled with matching events, and its cursor moves past all others."""
    client = HistoryClient(100)
    page = client.fetch("level=ERROR&limit=3")
    assert [item["seq"] for item in page["events"]] == [10, 20, 30]
    assert page["cursor"] == "e-30"
    page = client.fetch("subjects=system.%3E")
    assert page == {"events": [], "cursor": "e-100", "more": False}


@pytest.mark.parametrize(("ago", "first"), [("5s", 95), ("50s", 50)])
def test_since_is_resolved_by_the_log_or_the_stream(ago: str, first: int) -> None:
    """``since`` is resolved by the log if it is recent enough, otherwise by the stream."""
    assert HistoryClient(100).seqs(f"since={ago}&limit=3") == [first, first + 1, first + 2]


def test_history_starts_where_the_stream_does() -> None:
    """Events past retention are not in any page, in either direction."""
    client = HistoryClient(100, first=40)
    assert client.seqs("limit=2") == [41, 42]
    page = client.fetch("order=newest&limit=1000")
    assert [item["seq"] for item in page["events"]] == list(range(41, 101))
    assert page["more"] is False


@pytest.mark.parametrize(("first", "cursor"), [(40, 5), (CHUNK_SEQUENCES + 10, 5)])
def test_paging_past_retention_ends(first: int, cursor: int) -> None:
    """Paging backward ends where the stream has no more events."""
    client = HistoryClient(CHUNK_SEQUENCES + 100, first=first, log_events=20)
    until, more = f"e-{CHUNK_SEQUENCES + 100}", True
    received: list[int] = []
    while more:
        page = client.fetch(f"order=newest&limit=1000&cursor=e-{cursor}&until={until}")
        received = [item["seq"] for item in page["events"]] + received
        until, more = page["cursor"], page["more"]
        assert page["events"] or not more, "paging would never end"
    assert received == list(range(first + 1, CHUNK_SEQUENCES + 101))


@pytest.mark.parametrize("first", [40, CHUNK_SEQUENCES + 10])
def test_expired_events_are_reported_as_a_gap(first: int) -> None:
    """Events past retention are reported as a gap by each page whose range includes them."""
    client = HistoryClient(CHUNK_SEQUENCES + 100, first=first)
    lost = {"from": "e-5", "to": f"e-{first}", "dropped": None, "by": dict[str, int](), "reason": "retention"}
    page = client.fetch("cursor=e-5&limit=2")
    assert [item["seq"] for item in page["events"]] == [first + 1, first + 2]
    assert page["gap"] == lost
    assert "gap" not in client.fetch(f"cursor=e-{first}&limit=2")
    page = client.fetch(f"cursor=e-5&until=e-{first + 2}&order=newest&limit=50")
    assert [item["seq"] for item in page["events"]] == [first + 1, first + 2]
    assert page["gap"] == lost
    assert "gap" not in client.fetch("cursor=e-5&order=newest&limit=50")


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_missing_ranges_in_the_log_are_one_gap(order: str) -> None:
    """Missing ranges in the log are merged into one gap and limited to the page's range."""
    client = HistoryClient(100, log_events=50)
    client.stage.hub.fanout.publish_missing(110, NOW)
    client.stage.log(111)
    client.stage.hub.fanout.publish_missing(120, NOW)
    client.stage.log(121)
    page = client.fetch(f"cursor=e-95&order={order}")
    assert [item["seq"] for item in page["events"]] == [96, 97, 98, 99, 100, 111, 121]
    assert (page["gap"]["from"], page["gap"]["to"]) == ("e-100", "e-120")
    page = client.fetch(f"cursor=e-105&until=e-112&order={order}")
    assert (page["gap"]["from"], page["gap"]["to"]) == ("e-105", "e-112")
    assert "gap" not in client.fetch(f"cursor=e-120&order={order}")


def test_one_page_reads_a_bounded_part_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page whose filter matches no event ends after a few chunks and reports that there are more."""
    monkeypatch.setattr(history_module, "MAX_CHUNKS", 2)
    client = HistoryClient(3 * CHUNK_SEQUENCES)
    page = client.fetch("subjects=system.%3E")
    assert page == {"events": [], "cursor": f"e-{2 * CHUNK_SEQUENCES}", "more": True}
    page = client.fetch(f"subjects=system.%3E&cursor={page['cursor']}")
    assert page == {"events": [], "cursor": f"e-{3 * CHUNK_SEQUENCES}", "more": False}
    page = client.fetch(f"subjects=system.%3E&order=newest&until=e-{2 * CHUNK_SEQUENCES + 5}")
    assert page == {"events": [], "cursor": f"e-{CHUNK_SEQUENCES}", "more": True}


CLIENT = HistoryClient(CHUNK_SEQUENCES + 60, first=CHUNK_SEQUENCES - 60)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 50), st.sampled_from(["DEBUG", "ERROR"]), st.sampled_from(["oldest", "newest"]))
def test_pages_cover_the_complete_history(limit: int, level: str, order: str) -> None:
    """Pages of any size and direction have every event exactly once."""
    step = 1 if level == "DEBUG" else 10
    expected = [seq for seq in range(CHUNK_SEQUENCES - 59, CHUNK_SEQUENCES + 61) if seq % step == 0]
    received: list[int] = []
    position, more = "", True
    while more:
        start = f"&{'cursor' if order == 'oldest' else 'until'}={position}" if position else ""
        page = CLIENT.fetch(f"level={level}&limit={limit}&order={order}{start}")
        seqs_of_page = [item["seq"] for item in page["events"]]
        assert len(seqs_of_page) <= limit
        received = received + seqs_of_page if order == "oldest" else seqs_of_page + received
        position, more = page["cursor"], page["more"]
        assert parse_cursor(position)[0] == "e"
    assert received == expected


def walk(client: HistoryClient, query: str) -> tuple[list[int], int]:
    """Return all events of a query, and the number of pages that they took."""
    found: list[int] = []
    for pages in range(1, 100):
        page = client.fetch(query)
        fresh = [item["seq"] for item in page["events"]]
        found = fresh + found if "newest" in query else found + fresh
        if not page["more"]:
            return found, pages
        bound = "until" if "newest" in query else "cursor"
        query = "&".join(part for part in query.split("&") if not part.startswith((bound, "since")))
        query += f"&{bound}={page['cursor']}" + ("&since=earliest" if bound == "until" else "")
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_a_page_with_a_condition_examines_a_bounded_number_of_events(
    order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page ends after a number of examined events, also without a match, and the next one continues."""
    monkeypatch.setattr(history_module, "MAX_EXAMINED", 200)
    monkeypatch.setattr(history_module, "_STEP", 30)
    client = HistoryClient(1_000, log_events=400)
    page = client.fetch(f"since=earliest&order={order}&where=event.message.startsWith('line 500 ')")
    assert page["events"] == []
    assert page["more"]
    walked = walk(client, f"since=earliest&order={order}&where=event.message.startsWith('line 500 ')")
    assert walked[0] == [500]
    assert 5 <= walked[1] <= 8
    everything, pages = walk(client, f"since=earliest&order={order}&limit=1000&where=event.level=='ERROR'")
    assert everything == list(range(10, 1_001, 10))
    assert pages <= 8
    assert len(client.stage.hub.conditions) == 0


def test_a_page_with_a_condition_combines_it_with_the_filter() -> None:
    """Subjects, level, limit and condition apply together, in memory and in the stream."""
    client = HistoryClient(300, log_events=50)
    query = "since=earliest&level=error&limit=5&where=!event.message.contains('0 ')"
    assert client.seqs(query) == []
    query = "since=earliest&subjects=log.error.%3E&limit=5&where=event.message.matches('line [12]00 ')"
    assert client.seqs(query) == [100, 200]


def test_a_page_without_a_condition_reads_as_many_events_as_before() -> None:
    """The bound on examined events applies to conditions only."""
    client = HistoryClient(300, log_events=50)
    assert len(client.seqs("since=earliest&limit=1000")) == 300


def test_too_many_conditions_reject_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page counts as a user of its condition while it is read."""
    monkeypatch.setattr(conditions_module, "MAX_CONDITIONS", 0)
    client = HistoryClient(3)
    client.stage.hub.conditions = conditions_module.Conditions(list)
    with pytest.raises(ProtocolError, match="retry later") as caught:
        client.fetch("since=earliest&where=true")
    assert caught.value.code is ErrorCode.TOO_MANY
