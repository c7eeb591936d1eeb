"""The conservation law, on the hub in virtual time: delivered and dropped events add up to those published.

Clients stall, disconnect, resume and renew tokens. The stream deletes events that were not read yet and loses
its newest messages in a power failure.
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import orjson
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tickertape.contracts.close_codes import CloseCode
from tickertape.contracts.cursors import Cursor, parse_cursor
from tickertape.contracts.events import STREAM_SUBJECTS, Event
from tickertape.contracts.messages import Mode, ProtocolError
from tickertape.contracts.subjects import level_of, matches
from tickertape.relay.core.event_log import EventLog
from tickertape.relay.core.fanout import catch_up, snapshot_pieces
from tickertape.relay.core.fanout.batch import MESSAGE_BYTES
from tickertape.relay.core.fanout.examine import STEP_EVALUATIONS
from tickertape.relay.core.filters import RANK, Filter
from tickertape.relay.core.grants import EVERYTHING, Grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.core.replay_cache import CHUNK_SEQUENCES
from tickertape.relay.core.session.session import Session, State
from tickertape.relay.core.session.subscription import Request
from tickertape.relay.core.where.condition import Condition
from tickertape.relay.ingest.deleted_sequences import missing_ranges
from tickertape.relay.ingest.gap_detector import GapDetector
from tickertape.relay.ingest.range_reader import RangeReader
from tickertape.relay.transport.websocket.encoding import DEFLATED, PLAIN, Frames

from tests.support.clients.fake_link import nanoseconds
from tickertape.names import Names
from tickertape.nats.ordered_consumer import Delivery

SUBJECTS = (
    "gateway.status.ctp.a",
    "gateway.status.ctp.b",
    "system.health.relay",
    "log.debug.x",
    "log.info.x",
    "log.error.x",
    "log.error.y",
    "gateway.recovery.ctp.a",
)
CONDITIONS: dict[str, Callable[[int], bool]] = {
    "event.n % 2 == 0": lambda n: n % 2 == 0,
    "event.n % 7 == 3 && event.missing == 1 || event.n % 3 == 1": lambda n: n % 3 == 1,
    "event.n > 100000 || event.missing": lambda n: n > 100_000,
}
"""Conditions, and what they mean for the number in an event, which is its sequence."""

EVEN, THIRD, NONE = CONDITIONS
FILTERS = (
    ((">",), "DEBUG", None),
    (("log.>",), "ERROR", None),
    (("gateway.status.*.a", "log.info.>"), "INFO", None),
    (("gateway.>", "system.>"), "DEBUG", None),
    ((">",), "DEBUG", EVEN),
    (("log.>", "gateway.recovery.>"), "DEBUG", EVEN),
    ((">",), "INFO", THIRD),
    ((">",), "DEBUG", NONE),
)
Choice = tuple[tuple[str, ...], str, str | None]
GRANTS = {
    "everything": EVERYTHING,
    "logs": Grant(("log.>",), ("log.info.x",)),
    "errors": Grant(("log.*.x", "gateway.>"), level="ERROR"),
    "all but": Grant((">",), ("gateway.status.*.b", "log.error.y", "system.>")),
    "slow": Grant((">",), rate=2.0),
    "fast": Grant(("log.>", "gateway.status.>"), ("log.debug.>",), rate=40.0),
}
"""Grant of each token: subjects, exceptions, a minimum level, a rate. A renewal may change any of them."""

TOKENS = st.sampled_from(sorted(GRANTS))
MODES = st.sampled_from(["live", "complete", "latest"])


@dataclass
class Span:
    """Events and gaps that a client received since its last start."""

    start: int
    expected: Filter
    seen: list[int] = field(default_factory=list)
    counted: int = 0
    unknown: list[tuple[int, int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    position: int = 0
    conflates: bool = False


class Client:
    """Client that reads the hub's frames as a browser would and checks them against the protocol."""

    def __init__(self, hub: Hub, encoding: Frames = PLAIN) -> None:
        self.hub = hub
        self.encoding = encoding
        self.fills = False
        self.session: Session | None = None
        self.span: Span | None = None
        self.closed: int | None = None
        self.cursor: Cursor | None = None
        self.resets = 0
        self.states: dict[str, int] = {}
        self.reading = False
        self.request = Request()
        self.grant = EVERYTHING
        self.expected = Filter((">",))
        self.mode: Mode = "live"

    def send(self, data: bytes) -> None:
        assert self.closed is None
        for text in texts(data):
            self.read(orjson.loads(text))
        if self.fills and self.session is not None and self.session.writable:
            self.fills = False
            self.hub.sessions.pause(self.session)

    def admit(self, grant: Grant) -> bool:
        return True

    def close(self, code: int, reason: str) -> None:
        self.closed = code

    def abort(self) -> None:
        raise AssertionError("no session is aborted")

    def sees(self, subject: str) -> bool:
        """Return whether a subject is both requested and granted, by matching it directly."""
        level = level_of(subject)
        minimum = max(RANK[self.request.level], RANK[self.grant.level])
        return (
            any(matches(pattern, subject) for pattern in self.request.subjects)
            and any(matches(pattern, subject) for pattern in self.grant.subjects)
            and not any(matches(pattern, subject) for pattern in self.grant.deny)
            and (level is None or RANK[level] >= minimum)
        )

    def read(self, message: dict) -> None:  # type: ignore[type-arg]
        kind = message["type"]
        if "cursor" in message:
            self.cursor = parse_cursor(message["cursor"])
        if kind == "subscribed":
            start = parse_cursor(message["cursor"])[1]
            self.span = Span(start, self.expected, position=start)
            # A renewal that changes nothing leaves a snapshot in progress as it is.
            self.reading = self.reading or not message["resumed"]
        span = self.span
        if span is None:
            return
        if kind == "snapshot":
            self.reading = not message["done"]
            for item in message["events"]:
                assert self.sees(item["subject"])
                assert item["seq"] <= max(span.start, self.hub.log.head), (
                    "a snapshot shows no state ahead of the position"
                )
                self.states[item["subject"]] = max(item["seq"], self.states.get(item["subject"], 0))
        elif kind == "gap":
            begin, end = parse_cursor(message["from"])[1], parse_cursor(message["to"])[1]
            if message["reason"] == "reset":
                assert message["dropped"] is None
                self.cursor = parse_cursor(message["to"])
                self.resets += 1
                self.reading = False
                self.span = Span(end, self.expected, position=end)
                self.states.clear()
                return
            assert not self.reading, "nothing is skipped before the snapshot is complete"
            assert span.position <= begin < end, "gaps do not overlap and lie ahead of the position"
            span.gaps.append((begin, end))
            if message["dropped"] is None:
                span.unknown.append((begin, end))
            else:
                assert message["dropped"] == sum(message["by"].values()) > 0
                buckets = {".".join(one.split(".")[:2]) for one in SUBJECTS if self.sees(one)}
                assert set(message["by"]) <= buckets, "only subjects that the client may see are counted"
                span.counted += message["dropped"]
        elif kind == "events":
            assert not self.reading, "no event comes before the snapshot is complete"
            for item in message["events"]:
                assert self.sees(item["subject"])
                assert fulfils(span.expected, item["seq"], item["subject"])
                assert not span.seen or item["seq"] > span.seen[-1], "events come once and in stream order"
                span.seen.append(item["seq"])
                if item["subject"].startswith(("gateway.status.", "system.health.")):
                    self.states[item["subject"]] = item["seq"]
            span.counted += message.get("conflated", 0)
            span.conflates = span.conflates or "conflated" in message
            position = parse_cursor(message["cursor"])[1]
            assert position >= span.seen[-1]
            span.position = position
        elif kind == "heartbeat":
            assert not self.reading, "no cursor passes states that were not sent"
            assert parse_cursor(message["cursor"])[1] >= span.position
            span.position = parse_cursor(message["cursor"])[1]


def texts(data: bytes) -> list[bytes]:
    """Split complete, unmasked WebSocket frames."""
    found = []
    while data:
        assert data[0] in (0x81, 0xC1)
        size, at = data[1], 2
        if size == 126:
            size, at = int.from_bytes(data[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(data[2:10], "big"), 10
        text = data[at : at + size]
        found.append(text if data[0] == 0x81 else zlib.decompressobj(-15).decompress(text))
        data = data[at + size :]
    return found


def granted(token: str, request: Request) -> Filter | None:
    """Return the intersection of a token's grant with a request, or None if it is empty."""
    return narrowed(GRANTS[token], request)


def narrowed(grant: Grant, request: Request) -> Filter | None:
    """Return the intersection of a grant with a request, or None if it is empty."""
    try:
        return grant.intersect(request.subjects, request.level, request.where)
    except ProtocolError:
        return None


def fulfils(expected: Filter, seq: int, subject: str) -> bool:
    """Return whether an event is to be delivered, by what its condition means."""
    state = subject.startswith(("gateway.status.", "system.health."))
    return expected.matches(subject) and (
        state or expected.where is None or CONDITIONS[expected.where.source](seq)
    )


def request_of(choice: Choice, mode: Mode, cursor: Cursor | None = None) -> Request:
    """Return the request for a filter."""
    subjects, level, where = choice
    condition = None if where is None else Condition(where)
    return Request(subjects=subjects, level=level, mode=mode, cursor=cursor, where=condition)


class Law(RuleBasedStateMachine):
    """State machine of events, clients, stalls, resumes and deletions; the law holds after each step."""

    @initialize(
        rate=st.sampled_from([0.0, 3.0, 20.0]),
        log_events=st.sampled_from([5, 30, 1000]),
        max_catch_up=st.sampled_from([2, 10, 1000]),
        head=st.sampled_from([0, CHUNK_SEQUENCES - 10]),
        reads=st.booleans(),
        ceiling=st.sampled_from([0.0, 5.0, 5_000.0]),
        piece=st.sampled_from([1, MESSAGE_BYTES]),
        evaluations=st.sampled_from([3, STEP_EVALUATIONS]),
    )
    def begin(
        self,
        rate: float,
        log_events: int,
        max_catch_up: int,
        head: int,
        reads: bool,
        ceiling: float,
        piece: int,
        evaluations: int,
    ) -> None:
        self.patch = pytest.MonkeyPatch()
        # With 1 byte, each state is a piece of its own.
        self.patch.setattr(snapshot_pieces, "MESSAGE_BYTES", piece)
        # With few evaluations in a turn, a client with a condition needs many turns.
        self.patch.setattr(catch_up, "STEP_EVALUATIONS", evaluations)
        self.now = 1_000_000.0
        self.lookups: list[Session] = []
        self.woken = 0
        self.hub = Hub(
            HubSettings(rate=rate, log_events=log_events, max_catch_up=max_catch_up, complete_rate=ceiling),
            self.wake,
            (lambda: None) if reads else None,
            self.lookups.append,
            GRANTS.__getitem__,
        )
        self.reads = reads
        self.first = head  # the stream has deleted everything up to here
        self.epoch = "e"
        self.last = head  # the stream's last sequence; the relay learns it with the next message
        self.messages = 0
        self.given = {head: self.stamp()}  # when the stream stored the message of each sequence
        self.stored = dict(self.given)  # the same, for messages that the stream still has
        self.hub.begin(self.epoch, head, self.stored[head])
        self.hub.sessions.set_upstream(True, self.now)
        self.lost = ""
        range_reader = RangeReader(Names(), STREAM_SUBJECTS)
        self.gaps = GapDetector(range_reader, lambda: self.hub.log.head, self.take, self.missing, self.fail)
        self.gaps.restart()
        self.published: list[tuple[int, str]] = []
        self.newest: dict[str, int] = {}
        self.clients: list[Client] = []
        self.cursors = [Cursor(self.epoch, head, self.stored[head])]

    def stamp(self) -> int:
        """Return a timestamp that no other message has."""
        self.messages += 1
        return nanoseconds(self.now) + self.messages

    def fail(self, reason: str) -> None:
        self.lost = reason

    def missing(self, end: int) -> None:
        self.hub.fanout.publish_missing(end, self.now)

    def take(self, delivery: Delivery) -> None:
        """Pass a message to the hub as the ingest does."""
        seq, subject, stored_ns = delivery.seq, delivery.subject, delivery.stored_ns
        if subject.startswith("checkpoint."):
            self.hub.log.advance(seq, stored_ns)
        elif delivery.data == b"broken":
            self.hub.reject(seq, "bad_json", stored_ns)
        else:
            self.hub.publish(seq, subject, self.event(seq, subject), stored_ns, self.now)

    def event(self, seq: int, subject: str) -> Event:
        state = subject.startswith(("gateway.status.", "system.health."))
        return Event(b'{"n":%d}' % seq, self.now, state, False)

    def store(self, subject: str, data: bytes = b"") -> Delivery:
        """Store a message in the stream."""
        self.last += 1
        self.stored[self.last] = self.given[self.last] = self.stamp()
        return Delivery(self.last, subject, data, self.stored[self.last], 0, None)

    def wake(self) -> None:
        self.woken += 1

    @rule(subject=st.sampled_from(SUBJECTS), times=st.integers(1, 12), skip=st.integers(0, 2))
    def publish(self, subject: str, times: int, skip: int) -> None:
        """Publish events, with checkpoints or rejected events in between."""
        for _ in range(times):
            if skip:
                other = ("checkpoint.x", b"") if skip == 1 else (subject, b"broken")
                self.gaps.receive(self.store(*other))
            delivery = self.store(subject)
            self.published.append((delivery.seq, subject))
            self.gaps.receive(delivery)
            if subject.startswith(("gateway.status.", "system.health.")):
                self.newest[subject] = delivery.seq

    @rule(
        choice=st.sampled_from(FILTERS), mode=MODES, encoding=st.sampled_from((PLAIN, DEFLATED)), token=TOKENS
    )
    def connect(self, choice: Choice, mode: Mode, encoding: Frames, token: str) -> None:
        """Connect a new client."""
        self.open(request_of(choice, mode), token, encoding)

    @rule(choice=st.sampled_from(FILTERS), mode=MODES, ahead=st.booleans(), token=TOKENS, data=st.data())
    def come_back(self, choice: Choice, mode: Mode, ahead: bool, token: str, data: st.DataObject) -> None:
        """Resume from a cursor that a client got earlier, or from one of a relay that is ahead."""
        beyond = Cursor(self.epoch, self.hub.log.head + 3)
        cursor = beyond if ahead else data.draw(st.sampled_from(self.cursors[-6:]))
        self.resume(request_of(choice, mode, cursor), cursor, token, ahead)

    def resume(self, request: Request, cursor: Cursor, token: str, ahead: bool = False) -> None:
        client = self.open(request, token)
        lost = cursor.epoch != self.epoch or (not ahead and cursor.sequence > self.last)
        other = cursor.stored_ns is not None and self.given.get(cursor.sequence, 0) != cursor.stored_ns
        while self.lookups:
            session = self.lookups.pop()
            assert session.locating is not None
            disproved = lost or (other and cursor.sequence in self.stored)
            self.hub.sessions.start_located(
                session, session.locating, None if disproved else cursor.sequence, self.now
            )
        if client.closed is None and (lost or (other and cursor.sequence in self.stored)):
            assert client.resets == 1, "a cursor that the stream lost causes a reset"
        elif client.closed is None and not other:
            assert client.resets == 0, "a cursor that the stream has causes no reset"

    @rule(times=st.integers(1, 3), most=st.sampled_from((1, 3, CHUNK_SEQUENCES)))
    def read(self, times: int, most: int) -> None:
        """Read requested chunks from the stream, as far as it still has their events and these fit."""
        for _ in range(times):
            expected = self.hub.fanout.replay_cache.next_request()
            if expected is None:
                return
            chunk = EventLog(CHUNK_SEQUENCES, 1 << 40)
            chunk.reset(max(expected.first - 1, self.first))
            last = min(expected.last, self.hub.log.head)
            stored = sorted(seq for seq in self.stored if chunk.floor < seq <= last)
            if len(stored) > most:
                del stored[most:]
                last = stored[-1]
            records = [
                self.hub.make_record(seq, subject, self.event(seq, subject), self.stored[seq])
                for seq, subject in self.published
                if seq in stored
            ]
            chunk.fill(records, missing_ranges(chunk.floor + 1, last, stored))
            chunk.advance(last)
            self.hub.fanout.add_chunk(expected, chunk)

    @rule(data=st.data())
    def retire(self, data: st.DataObject) -> None:
        """Delete the stream's oldest events."""
        self.first = data.draw(st.integers(self.first, self.hub.log.head))
        self.forget(seq for seq in list(self.stored) if seq <= self.first)

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        """Delete single messages that the relay has already received."""
        if self.stored:
            self.forget(data.draw(st.lists(st.sampled_from(sorted(self.stored)), max_size=5)))

    @rule(subject=st.sampled_from(SUBJECTS), times=st.integers(1, 5))
    def evict(self, subject: str, times: int) -> None:
        """Delete messages before the relay receives them; the next message reveals it."""
        for _ in range(times):
            self.published.append((self.store(subject).seq, subject))
            self.forget([self.last])

    @rule(states=st.sets(st.sampled_from(SUBJECTS[:3])))
    def reload_states(self, states: set[str]) -> None:
        """Reload states among deleted events from the stream of the newest states."""
        newest = {subject: seq for seq, subject in self.published if seq <= self.hub.log.head}
        loaded = [
            self.hub.load_state(newest[subject], subject, self.event(newest[subject], subject), 1)
            for subject in states
            if subject in newest
        ]
        if any(loaded):
            self.hub.refresh_sessions(self.now)
            for client in self.clients:
                assert client.session is not None
                if client.session.feed is not None and client.session in client.session.feed.live:
                    for subject in states & newest.keys():
                        assert not client.sees(subject) or client.states[subject] >= newest[subject]

    def forget(self, seqs: Iterable[int]) -> None:
        for seq in seqs:
            self.stored.pop(seq, None)

    @rule(
        lost=st.integers(1, 8),
        regrown=st.integers(0, 12),
        more=st.integers(0, 12),
        subject=st.sampled_from(SUBJECTS),
        mode=MODES,
    )
    def fail_power(self, lost: int, regrown: int, more: int, subject: str, mode: Mode) -> None:
        """Lose the stream's newest messages and store others before the relay reconnects."""
        kept = max(self.first, self.last - lost)
        if kept == self.last or self.hub.log.head not in self.stored or self.hub.log.head <= kept:
            return
        # The failure takes back events whose cursors clients got last.
        self.cursors += [client.cursor for client in self.clients[-3:] if client.cursor is not None]
        newest = Cursor(self.epoch, self.hub.log.head, self.stored[self.hub.log.head])
        self.forget(range(kept + 1, self.last + 1))
        self.published = [(seq, what) for seq, what in self.published if seq <= kept]
        self.last = kept
        for _ in range(regrown):
            self.published.append((self.store(subject).seq, subject))
        # The relay has found that its newest message differs from the stream's or lies behind the stream's
        # end.
        self.hub.begin(self.epoch, self.last, self.stored.get(self.last))
        self.newest.clear()
        self.hub.restart_sessions()
        self.gaps.restart()
        self.publish(subject, more, 0)
        self.resume(Request(mode=mode, cursor=newest), newest, "everything")

    @rule(head=st.sampled_from([0, 7, CHUNK_SEQUENCES - 3]))
    def replace(self, head: int) -> None:
        """Replace the stream and check that all clients are reset to it."""
        self.epoch = f"{int(self.epoch, 16) + 1:x}"
        self.first = head
        self.last = head
        self.published.clear()
        self.newest.clear()
        self.given = {head: self.stamp()}
        self.stored = dict(self.given)
        self.hub.begin(self.epoch, head, self.stored[head])
        self.hub.restart_sessions()
        self.gaps.restart()
        for client in self.clients:
            assert client.span is not None
            assert (client.span.start, client.span.seen) == (head, [])

    def open(self, request: Request, token: str, encoding: Frames = PLAIN) -> Client:
        client = Client(self.hub, encoding)
        client.request, client.grant = request, GRANTS[token]
        client.mode = request.mode
        expected = granted(token, request)
        if expected is not None:
            client.expected = expected
        # The token comes with the 'Authorization' header, or in 'auth' as the first message.
        late = encoding is DEFLATED
        client.session = self.hub.sessions.open(client, request, self.now, None if late else GRANTS[token])
        if late:
            assert client.closed is None
            self.renewed(client, token)
        assert (client.closed == CloseCode.FORBIDDEN) == (expected is None)
        if expected is not None:
            self.clients.append(client)
        return client

    def renewed(self, client: Client, token: str) -> None:
        assert client.session is not None
        self.hub.sessions.receive(client.session, orjson.dumps({"type": "auth", "token": token}), self.now)

    @rule(token=TOKENS, data=st.data())
    def renew(self, token: str, data: st.DataObject) -> None:
        """Renew a client's token, which may change its permissions and rate or end its session."""
        client = self.pick_client(data)
        if client is None or client.span is None:
            return
        self.check(client)
        before = client.span.position
        expected = granted(token, client.request)
        if expected is not None:
            client.expected, client.grant = expected, GRANTS[token]
        self.renewed(client, token)
        if expected is None:
            assert client.closed == CloseCode.FORBIDDEN
            self.clients.remove(client)
        else:
            assert client.span.start >= before
            assert client.session is not None
            assert client.session.grant is GRANTS[token]

    @rule(choice=st.sampled_from(FILTERS), mode=MODES, data=st.data())
    def change(self, choice: Choice, mode: Mode, data: st.DataObject) -> None:
        """Change a client's filter, which continues from its position."""
        client = self.pick_client(data)
        if client is None or client.span is None or client.session is None:
            return
        self.check(client)
        before = client.span.position
        assert client.session.grant is not None
        requested = request_of(choice, mode)
        expected = narrowed(client.session.grant, requested)
        if expected is not None:
            client.request, client.expected, client.mode = requested, expected, mode
        body = {
            "type": "subscribe",
            "subjects": choice[0],
            "level": choice[1],
            "mode": mode,
            "where": choice[2],
        }
        self.hub.sessions.receive(client.session, orjson.dumps(body), self.now)
        if expected is None:
            assert client.closed == CloseCode.FORBIDDEN
            self.clients.remove(client)
        else:
            assert client.span.start >= before

    @rule(data=st.data())
    def stall(self, data: st.DataObject) -> None:
        """Fill a client's socket."""
        client = self.pick_client(data)
        if client is not None and client.session is not None and client.session.writable:
            self.hub.sessions.pause(client.session)

    @rule(data=st.data())
    def fill(self, data: st.DataObject) -> None:
        """Let a client's socket fill up during the next write."""
        client = self.pick_client(data)
        if client is not None:
            client.fills = True

    @rule(data=st.data())
    def unstall(self, data: st.DataObject) -> None:
        """Drain a client's socket."""
        client = self.pick_client(data)
        if client is not None and client.session is not None and not client.session.writable:
            self.hub.sessions.resume(client.session)

    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        """Disconnect a client and keep its last cursor for a later resume."""
        client = self.pick_client(data)
        if client is not None and client.session is not None:
            if client.cursor is not None:
                self.cursors.append(client.cursor)
            self.hub.sessions.remove(client.session)
            self.clients.remove(client)

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.3, 20.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass, tick and flush."""
        self.now += seconds
        self.hub.tick(self.now)
        self.hub.fanout.flush(self.now)

    def pick_client(self, data: st.DataObject) -> Client | None:
        return data.draw(st.sampled_from(self.clients)) if self.clients else None

    @invariant()
    def every_session_is_tracked(self) -> None:
        """Check that each session is in exactly one state: live, catching up, waiting, paced, or stalled."""
        for client in getattr(self, "clients", ()):
            session = client.session
            assert session is not None
            assert session.state is State.FOLLOWING
            assert session.feed is not None
            at_head = session in session.feed.live
            catching = session in self.hub.fanout._catch_up._ready
            waiting = session in self.hub.fanout.replay_cache
            paced = session in self.hub.fanout._catch_up._paced
            assert at_head + catching + waiting + paced + (not session.writable) == 1
            assert not (at_head and session.bucket is not None), "a paced session is not live"
            assert not client.reading or session.reading is not None
            assert not (at_head and session.reading is not None), "the snapshot comes before live events"

    @invariant()
    def bounds_hold(self) -> None:
        """Check that the log stays within its limit."""
        if hasattr(self, "hub"):
            assert len(self.hub.log) <= self.hub.settings.log_events

    @invariant()
    def law_holds(self) -> None:
        """Check that delivered and dropped events add up to those published, for each client."""
        for client in getattr(self, "clients", ()):
            self.check(client)

    def check(self, client: Client) -> None:
        span = client.span
        assert span is not None
        session = client.session
        assert session is not None
        feed = session.feed
        assert feed is not None
        position = feed.position(self.hub.log.head) if session in feed.live else session.cursor
        matching = [
            seq
            for seq, subject in self.published
            if span.start < seq <= position
            and fulfils(span.expected, seq, subject)
            and not any(begin < seq <= end for begin, end in span.unknown)
        ]
        counted_seen = [
            seq for seq in span.seen if not any(begin < seq <= end for begin, end in span.unknown)
        ]
        assert len(counted_seen) + span.counted == len(matching), (span, position, matching)
        assert set(counted_seen) <= set(matching)
        if client.mode == "complete":
            assert span.counted == 0, "mode complete skips nothing"
            if self.reads:
                kept = {seq for seq, _ in self.published if seq in self.stored}
                for begin, end in span.unknown:
                    assert kept.isdisjoint(range(begin + 1, end + 1)), (
                        "only events that the stream lost are lost"
                    )
        # From the client's side: every event that its cursor has passed was delivered or lies in a gap.
        seen = set(span.seen)
        for seq in matching:
            if seq <= span.position and seq not in seen and not span.conflates:
                assert any(begin < seq <= end for begin, end in span.gaps), (seq, span)

    def teardown(self) -> None:
        """Check that all clients are live and know the newest states once they are writable."""
        if not hasattr(self, "hub"):
            return
        try:
            self.settle()
        finally:
            self.patch.undo()

    def settle(self) -> None:
        for client in self.clients:
            client.fills = False
            if client.session is not None and not client.session.writable:
                self.hub.sessions.resume(client.session)
        for _ in range(20):
            # A relay that was behind receives what other relays have already delivered.
            self.publish("log.info.x", 1, 0)
        for turn in range(2_000):
            if turn >= 200 and not self.hub.fanout.behind:
                break  # a paced session needs time to catch up
            self.now += 0.2
            self.read(3, CHUNK_SEQUENCES)
            self.hub.fanout.flush(self.now)
        newest = defaultdict(int, self.newest)
        for client in self.clients:
            assert client.session is not None
            feed = client.session.feed
            assert feed is not None
            if client.session.bucket is None:
                assert client.session in feed.live
            else:
                assert client.session.cursor == feed.position(self.hub.log.head)
            self.check(client)
            assert not client.reading
            for subject, seq in newest.items():
                expected = client.expected.matches(subject) and level_of(subject) is None
                if expected and client.span is not None and seq > client.span.start:
                    # It may also be a later state that was deleted before its delivery and then reloaded.
                    assert client.states.get(subject, 0) >= seq, (subject, seq, client.span)


TestLaw = Law.TestCase
TestLaw.settings = settings(max_examples=250, stateful_step_count=50, deadline=None)


def test_ranks_are_the_levels_in_order() -> None:
    """The levels that the law is tested with are those of the contract, in order of rank."""
    assert sorted(RANK, key=RANK.__getitem__) == ["DEBUG", "INFO", "WARN", "ERROR", "CRITICAL"]
