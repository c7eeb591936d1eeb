"""An event log, a snapshot and one feed, driven by hand."""

from tickertape.contracts.encode import encode_event
from tickertape.contracts.messages import Events, GapReason, Mode, RelayMessage, relay_message
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.batch import Batch
from tickertape.relay.core.fanout.feed import Feed, FeedKey, Member
from tickertape.relay.core.fanout.next_batch import next_batch
from tickertape.relay.core.filters import Filter, Route
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.transport.websocket.encoding import PLAIN

from tests.support.clients.fake_link import NOW, FakeLink, only, texts, untimed

ALL = Filter((">",))


def member_of(link: FakeLink) -> Member:
    """Return a member without a session."""

    def unexpected(member: Member, error: Exception) -> None:
        raise error

    return Member(link.send, link.encoding, unexpected)


class Bench:
    """An event log, a snapshot and one feed."""

    def __init__(
        self,
        rate: float = 0.0,
        expected: Filter = ALL,
        max_events: int = 1000,
        mode: Mode = "live",
        interval_ms: int = 0,
    ) -> None:
        self.expected = expected
        self.log = EventLog(max_events, 10**9)
        self.log.reset(0)
        self.snapshot = Snapshot()
        self.feed = Feed(FeedKey(expected.key, mode, rate, interval_ms), expected, NOW)
        self.member: Member = member_of(FakeLink())
        self.feed.join(self.member)

    def publish(self, seq: int, subject: str = "log.info.x", size: int = 0, at: float = NOW) -> None:
        """Add an event to the log, and offer it to the feed if it matches."""
        route = Route(subject)
        state = subject.startswith("gateway.status.")
        data = encode_event(route.prefix, seq, b'{"m":"%b"}' % (b"x" * size))
        record = Record(seq, route, data, state, False, at, at, int(at * 1e9))
        before = self.log.head
        self.log.append(record)
        if state:
            self.snapshot.put(record)
        if self.expected.matches(subject):
            if not self.feed.pending:
                self.feed.cursor = before
            self.feed.pending.append(record)

    def take(self, now: float = NOW, *, hold: bool = True) -> Batch | None:
        """Return the next batch at the head."""
        return self.feed.take_batch(self.log, "e", now, hold=hold)

    def behind(self, start: int, max_behind: int = 1000, reason: GapReason = "slow") -> Batch | None:
        """Return the next batch of a member at a position."""
        session = member_of(FakeLink())
        session.cursor = start
        upto = self.log.head
        return next_batch(session, self.feed, self.log, self.snapshot, "e", upto, max_behind, reason)


def states_of(snapshot: Snapshot, event_filter: Filter, upto: int) -> list[Record]:
    """Return all states that a client at a position is shown."""
    reading, found = snapshot.read(upto), []
    while reading.index < reading.end:
        states, index = snapshot.advance(reading, event_filter, 1 << 16)
        snapshot.move(reading, index)
        found += states
    return found


def read(batch: Batch | None) -> list[RelayMessage]:
    """Return the messages of a batch."""
    assert batch is not None
    return [relay_message.validate_json(untimed(text)) for text in texts(batch.encoded(PLAIN))]


def cursors(messages: list[RelayMessage]) -> list[str]:
    """Return the positions of the cursors in a batch."""
    return [message.cursor for message in only(messages, Events)]
