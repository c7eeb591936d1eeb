"""Pages of history: from the log and from stretches of the stream, in both directions, without a repeat."""

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
from tickertape.relay.endpoints import history as history_module
from tickertape.relay.endpoints.history import History, Query, parse
from tickertape.relay.ingest.replay_readers import ReplayReaders

from tests.support.clients.fake_link import NOW, Stage, untimed


class Shelf(ReplayReaders):
    """Readers of a stream that a stage holds."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.read: list[int] = []

    async def chunk_after(self, place: int) -> EventLog:
        """What the stream still has of a stretch."""
        number = place // CHUNK_SEQUENCES
        self.read.append(number)
        made = EventLog(CHUNK_SEQUENCES, 1 << 40)
        made.reset(max(number * CHUNK_SEQUENCES, self._stage.first))
        for seq, subject, event, stored_ns in self._stage.stored:
            if made.floor < seq <= (number + 1) * CHUNK_SEQUENCES:
                made.append(self._stage.hub.make_record(seq, subject, event, stored_ns))
        made.advance(min((number + 1) * CHUNK_SEQUENCES, self._stage.hub.log.head))
        return made

    async def position_at(self, moment: float) -> int:
        """Before the first event that was stored then or later."""
        later = (seq for seq, _, _, stored_ns in self._stage.stored if stored_ns >= moment * 1e9)
        return max(self._stage.first, next(later, self._stage.hub.log.head + 1) - 1)


class Pages:
    """A client that asks for history."""

    def __init__(self, last: int, first: int = 0, log_events: int = 20) -> None:
        self.stage = Stage(stream=True, log_events=log_events)
        for seq in range(1, last + 1):
            self.stage.now = NOW + seq
            self.stage.log(seq, "error" if seq % 10 == 0 else "info")
        self.stage.first = first
        self.shelf = Shelf(self.stage)
        self.history = History(self.stage.hub, self.shelf)

    def ask(self, query: str) -> dict[str, Any]:
        """One page."""
        asked = parse(query)
        wanted = Filter(asked.request.subjects, asked.request.level)
        page: dict[str, Any] = orjson.loads(
            untimed(asyncio.run(self.history.page(asked, wanted, self.stage.now)))
        )
        return page

    def seqs(self, query: str) -> list[int]:
        """Sequences in one page."""
        return [item["seq"] for item in self.ask(query)["events"]]


def test_nothing_asked_is_the_first_page() -> None:
    """The oldest events that there are, a hundred of them."""
    assert parse("") == Query(Request(), None, 100, newest_first=False)
    pages = Pages(300)
    page = pages.ask("")
    assert [item["seq"] for item in page["events"]] == list(range(1, 101))
    assert (page["cursor"], page["more"]) == ("e-100", True)


def test_a_query_is_that_of_the_feed_and_more() -> None:
    """Filter and start as everywhere; end, number and order of its own."""
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
def test_a_bad_query_is_refused(query: str, code: ErrorCode) -> None:
    """With its code, and a text of one line."""
    with pytest.raises(ProtocolError) as caught:
        parse(query)
    assert caught.value.code is code
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("key", "meant"), [("subject", "subjects"), ("limits", "limit"), ("untill", "until")]
)
def test_an_unknown_key_is_refused_with_the_closest_match(key: str, meant: str) -> None:
    """Among those of history."""
    with pytest.raises(ProtocolError, match=f"did you mean '{meant}'") as caught:
        parse(f"{key}=5")
    assert caught.value.code is ErrorCode.BAD_QUERY


@pytest.mark.parametrize("query", ["cursor=f-3", "until=f-3"])
def test_a_cursor_of_another_stream_is_refused(query: str) -> None:
    """Its places mean nothing here."""
    with pytest.raises(ProtocolError, match="another stream"):
        Pages(30).ask(query)


def test_what_the_log_has_is_not_read_again() -> None:
    """Neither forward nor backward."""
    pages = Pages(100)
    assert pages.seqs("cursor=e-90") == list(range(91, 101))
    assert pages.seqs("order=newest&limit=10") == list(range(91, 101))
    assert pages.shelf.read == []


def test_a_page_goes_over_the_edges_of_stretches_and_into_the_log() -> None:
    """In order, each once."""
    pages = Pages(CHUNK_SEQUENCES + 100)
    page = pages.ask(f"cursor=e-{CHUNK_SEQUENCES - 5}&limit=1000")
    assert [item["seq"] for item in page["events"]] == list(range(CHUNK_SEQUENCES - 4, CHUNK_SEQUENCES + 101))
    assert (page["cursor"], page["more"]) == (f"e-{CHUNK_SEQUENCES + 100}", False)
    assert pages.shelf.read == [0, 1]


def test_the_newest_come_from_the_end() -> None:
    """In stream order all the same; the cursor is the ``until`` of the page before."""
    pages = Pages(100)
    page = pages.ask("order=newest&limit=30")
    assert [item["seq"] for item in page["events"]] == list(range(71, 101))
    assert (page["cursor"], page["more"]) == ("e-70", True)
    page = pages.ask("order=newest&limit=1000&until=e-70")
    assert [item["seq"] for item in page["events"]] == list(range(1, 71))
    assert (page["cursor"], page["more"]) == ("e-0", False)


def test_until_is_the_last_that_comes() -> None:
    """One that is ahead of the relay means the newest."""
    pages = Pages(100)
    assert pages.seqs("cursor=e-50&until=e-55") == [51, 52, 53, 54, 55]
    assert pages.seqs("cursor=e-95&until=e-999") == [96, 97, 98, 99, 100]
    assert pages.ask("cursor=e-60&until=e-55") == {"events": [], "cursor": "e-60", "more": False}


def test_a_filter_is_applied() -> None:
    """The page is filled with what matches; the place moves over the rest."""
    pages = Pages(100)
    page = pages.ask("level=ERROR&limit=3")
    assert [item["seq"] for item in page["events"]] == [10, 20, 30]
    assert page["cursor"] == "e-30"
    page = pages.ask("subjects=system.%3E")
    assert page == {"events": [], "cursor": "e-100", "more": False}


@pytest.mark.parametrize(("ago", "first"), [("5s", 95), ("50s", 50)])
def test_since_is_told_by_the_log_or_by_the_stream(ago: str, first: int) -> None:
    """From wherever its moment lies."""
    assert Pages(100).seqs(f"since={ago}&limit=3") == [first, first + 1, first + 2]


def test_history_begins_where_the_stream_does() -> None:
    """What it let go is not there, in either direction."""
    pages = Pages(100, first=40)
    assert pages.seqs("limit=2") == [41, 42]
    page = pages.ask("order=newest&limit=1000")
    assert [item["seq"] for item in page["events"]] == list(range(41, 101))
    assert page["more"] is False


@pytest.mark.parametrize(("first", "cursor"), [(40, 5), (CHUNK_SEQUENCES + 10, 5)])
def test_a_cursor_past_retention_comes_to_an_end(first: int, cursor: int) -> None:
    """Backward, too: there is no more where the stream has nothing."""
    pages = Pages(CHUNK_SEQUENCES + 100, first=first, log_events=20)
    place, more = f"e-{CHUNK_SEQUENCES + 100}", True
    got: list[int] = []
    while more:
        page = pages.ask(f"order=newest&limit=1000&cursor=e-{cursor}&until={place}")
        got = [item["seq"] for item in page["events"]] + got
        place, more = page["cursor"], page["more"]
        assert page["events"] or not more, "it would be asked for ever"
    assert got == list(range(first + 1, CHUNK_SEQUENCES + 101))


@pytest.mark.parametrize("first", [40, CHUNK_SEQUENCES + 10])
def test_what_the_stream_let_go_is_told(first: int) -> None:
    """A page that begins before retention says so, from either end, and only the page that it touches."""
    pages = Pages(CHUNK_SEQUENCES + 100, first=first)
    lost = {"from": "e-5", "to": f"e-{first}", "dropped": None, "by": dict[str, int](), "reason": "retention"}
    page = pages.ask("cursor=e-5&limit=2")
    assert [item["seq"] for item in page["events"]] == [first + 1, first + 2]
    assert page["gap"] == lost
    assert "gap" not in pages.ask(f"cursor=e-{first}&limit=2")
    page = pages.ask(f"cursor=e-5&until=e-{first + 2}&order=newest&limit=50")
    assert [item["seq"] for item in page["events"]] == [first + 1, first + 2]
    assert page["gap"] == lost
    assert "gap" not in pages.ask("cursor=e-5&order=newest&limit=50")


@pytest.mark.parametrize("order", ["oldest", "newest"])
def test_holes_in_memory_are_told_as_one_gap(order: str) -> None:
    """What the relay missed is merged, and cut to the page's range."""
    pages = Pages(100, log_events=50)
    pages.stage.hub.fanout.publish_missing(110, NOW)
    pages.stage.log(111)
    pages.stage.hub.fanout.publish_missing(120, NOW)
    pages.stage.log(121)
    page = pages.ask(f"cursor=e-95&order={order}")
    assert [item["seq"] for item in page["events"]] == [96, 97, 98, 99, 100, 111, 121]
    assert (page["gap"]["from"], page["gap"]["to"]) == ("e-100", "e-120")
    page = pages.ask(f"cursor=e-105&until=e-112&order={order}")
    assert (page["gap"]["from"], page["gap"]["to"]) == ("e-105", "e-112")
    assert "gap" not in pages.ask(f"cursor=e-120&order={order}")


def test_one_page_reads_a_bounded_part_of_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """A filter that nothing matches ends early, and says that there is more."""
    monkeypatch.setattr(history_module, "MAX_CHUNKS", 2)
    pages = Pages(3 * CHUNK_SEQUENCES)
    page = pages.ask("subjects=system.%3E")
    assert page == {"events": [], "cursor": f"e-{2 * CHUNK_SEQUENCES}", "more": True}
    page = pages.ask(f"subjects=system.%3E&cursor={page['cursor']}")
    assert page == {"events": [], "cursor": f"e-{3 * CHUNK_SEQUENCES}", "more": False}
    page = pages.ask(f"subjects=system.%3E&order=newest&until=e-{2 * CHUNK_SEQUENCES + 5}")
    assert page == {"events": [], "cursor": f"e-{CHUNK_SEQUENCES}", "more": True}


PAGES = Pages(CHUNK_SEQUENCES + 60, first=CHUNK_SEQUENCES - 60)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 50), st.sampled_from(["DEBUG", "ERROR"]), st.sampled_from(["oldest", "newest"]))
def test_pages_make_up_the_whole(limit: int, level: str, order: str) -> None:
    """However small they are, and from whichever end: nothing is lost, nothing comes twice."""
    step = 1 if level == "DEBUG" else 10
    expected = [seq for seq in range(CHUNK_SEQUENCES - 59, CHUNK_SEQUENCES + 61) if seq % step == 0]
    got: list[int] = []
    place, more = "", True
    while more:
        at = f"&{'cursor' if order == 'oldest' else 'until'}={place}" if place else ""
        page = PAGES.ask(f"level={level}&limit={limit}&order={order}{at}")
        some = [item["seq"] for item in page["events"]]
        assert len(some) <= limit
        got = got + some if order == "oldest" else some + got
        place, more = page["cursor"], page["more"]
        assert parse_cursor(place)[0] == "e"
    assert got == expected
