"""Conditions of clients: what is delivered, counted and evaluated, live and from history."""

import orjson
import pytest
from tickertape.contracts.client_messages import Subscribe
from tickertape.contracts.close_codes import CloseCode, ErrorCode
from tickertape.contracts.events import Event
from tickertape.contracts.messages import MAX_WHERE_BYTES, Gap, Heartbeat, Mode, ProtocolError, Subscribed
from tickertape.relay.core.fanout import catch_up, examine
from tickertape.relay.core.filters import Filter
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request, parse_query, request_from_subscribe
from tickertape.relay.core.where import conditions as conditions_module
from tickertape.relay.core.where.condition import Condition
from tickertape.relay.core.where.values import EventView

from tests.support.clients.fake_link import Stage, ended, gaps, only, seqs, shown

EVEN = "event.n % 2 == 0"


def request(where: str = EVEN, mode: Mode = "live", **fields: object) -> Request:
    """Return a request with a condition."""
    return Request(where=Condition(where), mode=mode, **fields)  # type: ignore[arg-type]


def publish(stage: Stage, first: int, last: int, subject: str = "log.info.x") -> None:
    """Publish log events whose number is their sequence."""
    for seq in range(first, last + 1):
        payload = orjson.dumps({"event_type": "x", "n": seq, "level": "INFO"})
        stage.publish(seq, subject, Event(payload, stage.now, False, False))


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """Record each evaluation: the condition and the number of the event."""
    made: list[tuple[str, object]] = []
    evaluate = Condition.evaluate

    def record(self: Condition, event: object, view: EventView) -> bool:
        made.append((self.source, view.fields.get("n")))
        return evaluate(self, event, view)  # type: ignore[arg-type]

    monkeypatch.setattr(Condition, "evaluate", record)
    return made


class TestDelivery:
    """Delivery to clients with a condition."""

    def test_only_matching_log_events_are_delivered(self) -> None:
        """Events that do not fulfil the condition are not sent; ``subscribed`` repeats it."""
        stage = Stage()
        link, session = stage.open(request())
        [subscribed] = only(link.read(), Subscribed)
        assert subscribed.where == EVEN
        publish(stage, 1, 5)
        stage.settle()
        assert seqs(link.read()) == [2, 4]
        assert stage.hub.fanout.position(session) == 5

    def test_without_a_condition_the_field_is_absent(self) -> None:
        """``subscribed`` has ``where`` only if there is a condition."""
        link, _ = Stage().open()
        assert b"where" not in b"".join(link.sent)

    def test_states_are_not_subject_to_it(self) -> None:
        """States and snapshots are delivered whatever the condition is."""
        stage = Stage()
        stage.status(1)
        link, _ = stage.open(request("false"))
        assert shown(link.read()) == [1]
        stage.status(2, status="UNHEALTHY")
        publish(stage, 3, 4)
        stage.settle()
        assert seqs(link.read()) == [2]

    def test_an_error_is_no_match_and_ends_nothing(self) -> None:
        """Events without the field, or with another type in it, are not delivered."""
        stage = Stage()
        link, _ = stage.follow(request("event.metadata.account > 1 || event.n == 2"))
        stage.log(1)
        publish(stage, 2, 3)
        stage.settle()
        assert seqs(link.read()) == [2]

    def test_the_condition_comes_before_the_rate(self) -> None:
        """Only matching events take tokens, and only they are counted in a gap."""
        stage = Stage(rate=4.0)
        link, _ = stage.follow(request())
        publish(stage, 1, 40)
        stage.settle()
        stage.flush(after=1.0)
        messages = link.read()
        [gap] = only(messages, Gap)
        assert gap.dropped is not None
        assert len(seqs(messages)) + gap.dropped == 20
        assert gap.by == {"log.info": gap.dropped}

    def test_latest_conflates_matching_events_only(self) -> None:
        """In mode ``latest``, an event that does not match replaces none."""
        stage = Stage()
        link, _ = stage.follow(request(mode="latest"))
        stage.flush(after=5.0)
        publish(stage, 1, 5)
        stage.flush(after=5.0)
        assert seqs(link.read()) == [4]

    def test_a_new_condition_applies_from_the_position_on(self) -> None:
        """``subscribe`` replaces the condition; without ``where`` there is none."""
        stage = Stage()
        link, session = stage.follow(request())
        publish(stage, 1, 2)
        stage.settle()
        stage.send_message(session, type="subscribe", where="event.n % 2 == 1")
        publish(stage, 3, 4)
        stage.settle()
        stage.send_message(session, type="subscribe")
        publish(stage, 5, 6)
        stage.settle()
        messages = link.read()
        assert seqs(messages) == [2, 3, 5, 6]
        assert [message.where for message in only(messages, Subscribed)] == ["event.n % 2 == 1", None]
        assert len(stage.hub.conditions) == 0

    def test_a_heartbeat_passes_events_that_do_not_match(self) -> None:
        """The cursor of a quiet feed advances, so that its clients resume where they are."""
        stage = Stage()
        link, _ = stage.follow(request("false"))
        publish(stage, 1, 9)
        stage.settle()
        stage.tick(after=20.0)
        assert [message.cursor for message in only(link.read(), Heartbeat)] == ["e-9"]


class TestSharing:
    """Feeds and evaluations that clients share."""

    def test_equal_filters_share_a_feed(self) -> None:
        """Clients with the same subjects, level and condition share a feed, and others do not."""
        stage = Stage()
        one, two, three, four = (
            stage.follow(r)[1] for r in (request(), request(), request("true"), request(subjects=("log.>",)))
        )
        assert one.feed is two.feed
        assert len(stage.hub.fanout.feeds) == 3
        assert three.feed is not one.feed is not four.feed
        assert len(stage.hub.conditions) == 2
        for session in (one, two, three, four):
            stage.hub.sessions.remove(session)
        assert len(stage.hub.conditions) == 0
        assert stage.hub.fanout.feeds == {}

    def test_snapshots_are_shared_by_filters_that_differ_in_the_condition(self) -> None:
        """A state is encoded once, since no condition applies to it."""
        stage = Stage()
        stage.status(1)
        links = [stage.open(request(f"event.n == {n}"))[0] for n in range(3)]
        pieces = [next(data for data in link.sent if b"snapshot" in data) for link in links]
        assert pieces[0] is pieces[1] is pieces[2]

    def test_each_event_is_evaluated_once_for_a_condition(
        self, evaluations: list[tuple[str, object]]
    ) -> None:
        """Clients of several feeds, live, stalled or new, share the results of a condition."""
        stage = Stage()
        live, _ = stage.follow(request())
        other, _ = stage.follow(request(mode="complete", subjects=("log.>",)))
        stalled, session = stage.follow(request(mode="complete"))
        stage.hub.sessions.pause(session)
        publish(stage, 1, 300)
        stage.settle()
        stage.hub.sessions.resume(session)
        stage.settle()
        late, _ = stage.follow(parse_query(f"cursor=e-0&mode=complete&where={EVEN.replace('%', '%25')}"))
        stage.settle()
        expected = list(range(2, 301, 2))
        assert [seqs(link.read()) for link in (live, other, stalled, late)] == [expected] * 4
        assert sorted(evaluations) == sorted((EVEN, n) for n in range(1, 301))

    def test_an_event_without_interested_feeds_is_not_parsed(
        self, evaluations: list[tuple[str, object]]
    ) -> None:
        """A condition is evaluated only for subjects that its filter matches."""
        stage = Stage()
        stage.follow(request(subjects=("log.error.>",)))
        publish(stage, 1, 5)
        stage.settle()
        assert evaluations == []

    def test_results_of_an_earlier_condition_are_not_mistaken(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A condition that takes the slot of another one is evaluated for all events."""
        monkeypatch.setattr(conditions_module, "MAX_STALE", 1)
        stage = Stage()
        _, first = stage.follow(request("true"))
        publish(stage, 1, 4)
        stage.settle()
        stage.hub.sessions.remove(first)
        link, _ = stage.follow(parse_query("cursor=e-0&where=event.n==3"))
        stage.settle()
        assert seqs(link.read()) == [3]


class TestHistory:
    """Clients that read from memory and from the stream."""

    @pytest.mark.parametrize("mode", ["live", "complete"])
    def test_a_resume_within_memory_selects_matching_events(self, mode: Mode) -> None:
        """Events in memory are matched, and the client then follows."""
        stage = Stage()
        publish(stage, 1, 50)
        link, _ = stage.follow(parse_query(f"cursor=e-10&mode={mode}&where=event.n%2510==0"))
        stage.settle()
        publish(stage, 51, 60)
        stage.settle()
        assert seqs(link.read()) == [20, 30, 40, 50, 60]

    @pytest.mark.parametrize("mode", ["live", "complete", "latest"])
    def test_a_resume_before_memory_reads_the_stream(self, mode: Mode) -> None:
        """Chunks of the stream are matched like events in memory."""
        stage = Stage(stream=True, log_events=20)
        publish(stage, 1, 100)
        link, _ = stage.follow(parse_query(f"cursor=e-10&mode={mode}&where=event.n%2510==0"))
        stage.settle()
        while stage.read():
            stage.settle()
        found = seqs(link.read())
        if mode == "latest":
            assert found[-1] == 100
        else:
            assert found == list(range(20, 101, 10))

    def test_a_gap_counts_the_matches_in_memory(self) -> None:
        """A client in mode ``live`` that is far behind is told how many matching events it is not sent."""
        stage = Stage(max_catch_up=10)
        publish(stage, 1, 100)
        link, _ = stage.follow(parse_query("cursor=e-0&where=event.n%252==0"))
        stage.settle()
        messages = link.read()
        assert seqs(messages) == list(range(82, 101, 2))
        assert gaps(messages) == [("e-0", "e-80", 40, "slow")]

    def test_before_memory_the_number_is_unknown(self) -> None:
        """What would have to be read from the stream to be counted is reported without a number."""
        stage = Stage(stream=True, log_events=20, max_catch_up=5)
        publish(stage, 1, 5_000)
        link, _ = stage.follow(parse_query("cursor=e-10&where=event.n%252==0"))
        stage.settle()
        while stage.read():
            stage.settle()
        reported = gaps(link.read())
        assert reported[0][2:] == (None, "slow")
        assert reported[-1][2:] == (5, "slow")

    @pytest.mark.parametrize("mode", ["live", "complete", "latest"])
    def test_a_rare_condition_is_evaluated_in_steps(
        self, mode: Mode, monkeypatch: pytest.MonkeyPatch, evaluations: list[tuple[str, object]]
    ) -> None:
        """However many events a client examines, one flush evaluates few of them."""
        monkeypatch.setattr(catch_up, "STEP_EVALUATIONS", 100)
        stage = Stage(max_catch_up=10)
        publish(stage, 1, 3_000)
        link, _ = stage.follow(parse_query(f"cursor=e-0&mode={mode}&where=event.n%251000==0"))
        most = flushes = 0
        while stage.hub.fanout.behind:
            before = len(evaluations)
            stage.flush()
            most, flushes = max(most, len(evaluations) - before), flushes + 1
        assert most == 100
        assert flushes >= 30
        assert len(evaluations) == 3_000
        assert seqs(link.read()) == [1000, 2000, 3000] if mode != "latest" else [3000]

    def test_known_results_count_little(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Events that need no evaluation are passed quickly, and also in bounded steps."""
        monkeypatch.setattr(examine, "CHEAP_PER_EVALUATION", 10)
        stage = Stage()
        publish(stage, 1, 100, "log.debug.x")
        publish(stage, 101, 110)
        event_filter = Filter(("log.info.>",), where=stage.hub.conditions.use(Condition(EVEN), ""))
        log = stage.hub.log
        assert examine.examine(log, event_filter, 0, 110, 5) == (50, 5)
        assert examine.examine(log, event_filter, 50, 110, 7) == (102, 7)
        assert examine.examine(log, event_filter, 102, 110, 100) == (110, 8)
        assert examine.examine(log, event_filter, 100, 110, 100) == (110, 1)
        assert examine.examine(log, event_filter, 0, 110, 5, newest_first=True) == (60, 5)
        assert examine.examine(log, event_filter, 100, 110, 0, newest_first=True) == (110, 0)

    def test_a_replaced_stream_forgets_results(self) -> None:
        """After a reset, events with the same sequences are evaluated again."""
        stage = Stage()
        link, _ = stage.follow(request(mode="complete"))
        publish(stage, 1, 4)
        stage.settle()
        stage.hub.begin("f", 0)
        stage.stored.clear()
        publish(stage, 1, 4)
        stage.settle()
        assert seqs(link.read()) == [2, 4, 2, 4]


class TestRequests:
    """Conditions in requests, and their limits."""

    @pytest.mark.parametrize(
        ("where", "position"), [("event.level = 1", "position 13"), ("", "position 1"), ("x" * 5_000, "2048")]
    )
    def test_an_invalid_condition_ends_the_session(self, where: str, position: str) -> None:
        """The error has a code of its own and names the position; the close code is that of filters."""
        stage = Stage()
        link, session = stage.follow()
        stage.send_message(session, type="subscribe", where=where)
        assert link.closed is not None
        assert position in link.closed[1]
        assert ended(link, CloseCode.BAD_FILTER, ErrorCode.BAD_WHERE, "subscribe")

    def test_query_and_subscribe_are_equal(self) -> None:
        """Both forms of a request are the same."""
        message = Subscribe(type="subscribe", where="event.n > 1")
        assert request_from_subscribe(message) == parse_query("where=event.n+%3E+1")
        with pytest.raises(ProtocolError, match=f"more than {MAX_WHERE_BYTES} bytes") as caught:
            parse_query("where=" + "x" * 2_100)
        assert caught.value.code is ErrorCode.BAD_WHERE

    def test_one_client_cannot_have_too_many(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A subject whose conditions cost too much is rejected, and leaves nothing behind."""
        monkeypatch.setattr(conditions_module, "MAX_CLIENT_COST", 7)
        stage = Stage()
        grant = Grant(subject="alice")
        _, first = stage.follow(request("event.n == 1 && true"), grant=grant)
        link, _ = stage.open(request("event.n == 2 && event.m == 2"), grant=grant)
        assert ended(link, CloseCode.TOO_MANY, ErrorCode.TOO_MANY)
        _, third = stage.follow(request("event.n == 3"), grant=grant)
        link = stage.follow(request("event.n == 2 && event.m == 2"))[0]
        assert link.closed is None, "another client is not affected"
        stage.send_message(first, type="subscribe", where="event.n == 3")
        assert first.feed is third.feed
        for session in list(stage.hub.sessions):
            stage.hub.sessions.remove(session)
        assert len(stage.hub.conditions) == 0
        assert stage.hub.conditions._clients == {}

    def test_a_renewed_token_keeps_the_condition(self) -> None:
        """A renewal changes subjects and level, and counts the condition for the new subject of the token."""
        stage = Stage(tokens={"one": Grant(subject="alice"), "two": Grant(("log.>",), subject="bob")})
        link, session = stage.follow(request(), grant=Grant(subject="alice"))
        for token in ("one", "two"):
            stage.send_message(session, type="auth", token=token)
        publish(stage, 1, 4)
        stage.settle()
        messages = link.read()
        assert seqs(messages) == [2, 4]
        assert [(m.where, m.subjects) for m in only(messages, Subscribed)] == [
            (EVEN, [">"]),
            (EVEN, ["log.>"]),
        ]
        assert list(stage.hub.conditions._clients) == ["bob"]
        stage.hub.sessions.remove(session)
        assert stage.hub.conditions._clients == {}

    def test_a_defect_ends_only_the_clients_of_the_condition(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """If an evaluation raised, other clients would still receive the event."""
        failures: list[str] = []
        stage = Stage(report=lambda session, error: failures.append(session))
        broken, session = stage.follow(request("event.n == 1"))
        other = stage.follow(request())[0], stage.follow()[0]

        def fail(view: EventView) -> None:
            raise RuntimeError("a defect")

        assert session.filter is not None
        assert session.filter.where is not None
        monkeypatch.setattr(session.filter.where, "_evaluate", fail)
        publish(stage, 1, 2)
        stage.settle()
        assert broken.closed is not None
        assert broken.closed[0] == CloseCode.INTERNAL_ERROR
        assert failures == [session.id]
        assert [seqs(link.read()) for link in other] == [[2], [1, 2]]


def test_the_repr_names_the_condition() -> None:
    """A filter shows its condition."""
    assert repr(Filter((">",), where=Condition("true"))) == "Filter(> >= DEBUG where true)"
