"""The hub: events go in, batches come out. It owns log, snapshot, fan-out and sessions.

Invariants:

1. Events are published in stream order, each once; the ingest sees to it.
2. What the stream loses is told to every session that would have had it, before any later cursor.
"""

from collections.abc import Callable, Iterable
from typing import Final

from tickertape.contracts.encode import encode_event
from tickertape.contracts.events import Event
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.hub_config import HubSettings
from tickertape.relay.core.session.session import Session
from tickertape.relay.core.session.sessions import Sessions
from tickertape.relay.core.snapshot import Snapshot

TICK: Final = 1.0
"""Seconds between two calls of ``tick``."""


def _unreported(session: str, error: Exception) -> None:
    """Raise the error, so that it does not pass unseen where no log is read."""
    raise error


class Hub:
    """One log, many cursors.

    Args:
        settings: what an operator sets.
        wake: called when there is something to flush and nothing was before.
        fetch: called when a replay chunk of the stream is wanted; None when the stream cannot be read.
        ask: called with a session whose position only the stream can tell; ``sessions.located`` answers. Its
            ``locating`` says what it wants: a cursor that is ahead of the relay, or a time before the log.
        verify: tells what a token grants, or raises ProtocolError; None where no tokens are asked for.
        report: called once with the id of a session that an internal error ends, and that error.

    Attributes:
        begun: how often it began in a stream, or in what a failure left of one.
    """

    def __init__(
        self,
        settings: HubSettings,
        wake: Callable[[], None],
        fetch: Callable[[], None] | None = None,
        ask: Callable[[Session], None] | None = None,
        verify: Callable[[str], Grant] | None = None,
        report: Callable[[str, Exception], None] = _unreported,
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        self.log = EventLog(settings.log_events, settings.log_bytes)
        self.snapshot = Snapshot()
        self.fanout = Fanout(self.log, self.snapshot, self.stats, settings.max_catch_up, wake, fetch)
        self.sessions = Sessions(
            settings, self.log, self.snapshot, self.fanout, self.stats, ask, verify, report
        )
        self.generation = 0
        self._heartbeat_at = 0.0

    def __repr__(self) -> str:
        return f"Hub({self.cursor()}, {len(self.sessions)} sessions, {self.fanout!r}, {self.log!r})"

    @property
    def epoch(self) -> str:
        """Epoch of all cursors; "0" before ``begin``."""
        return self.fanout.epoch

    def cursor(self) -> str:
        """Return the newest position that the relay has reached."""
        return self.fanout.cursor(self.log.head)

    def begin(self, epoch: str, head: int, stored_ns: int | None = None) -> None:
        """Say in which stream, and after which sequence, events will come; first of all calls.

        When it is called again, the stream is another one, or has lost what the relay had of it: sessions are
        told of a ``reset``, and get a fresh snapshot with ``restart_sessions``.

        Args:
            epoch: of all cursors.
            head: sequence of the stream's last message.
            stored_ns: when the stream stored it, UNIX nanoseconds; None when that is not known.
        """
        self.generation += 1
        before = self.sessions.positions()
        self.log.reset(head, stored_ns)
        self.snapshot.clear()
        self.fanout.reset(epoch)
        self.sessions.reset(before)

    def restart_sessions(self) -> None:
        """Send all sessions a fresh snapshot, once the newest states of the other stream are loaded."""
        self.sessions.send_snapshots()

    def refresh_sessions(self, now: float) -> None:
        """Send all sessions the newest states, as of where they stand; some were among deleted events."""
        self.fanout.flush_live(now)
        self.sessions.send_snapshots()

    def load_state(self, seq: int, subject: str, event: Event, stored_ns: int) -> bool:
        """Put an event of the stream's newest states into the snapshot; False when it is there already."""
        return event.state and self.snapshot.put(self.make_record(seq, subject, event, stored_ns))

    def warm(
        self,
        events: Iterable[tuple[int, str, Event, int]],
        floor: int,
        missing: Iterable[tuple[int, int]] = (),
    ) -> int:
        """Fill the log backwards with what the stream held at the start.

        Args:
            events: sequence, subject, event and when it was stored (UNIX nanoseconds); all that follow
                ``floor``, in order.
            floor: position before the first of them.
            missing: ranges of sequences after ``floor``, first to last, that the stream holds no more.

        Returns:
            how many were kept.
        """
        records = [
            self.make_record(seq, subject, event, stored_ns, stored_ns / 1e9)
            for seq, subject, event, stored_ns in events
        ]
        for record in records:
            if record.state:
                self.snapshot.put(record)
        return self.log.prepend(records, floor, missing)

    def publish(
        self,
        seq: int,
        subject: str,
        event: Event,
        stored_ns: int,
        now: float,
        traceparent: str | None = None,
    ) -> None:
        """Take in the next event of the stream.

        Args:
            seq: its sequence, greater than all before.
            subject: as clients see it.
            event: decoded.
            stored_ns: when the stream stored it, UNIX nanoseconds.
            now: UNIX seconds.
            traceparent: header of its message, if it had one.
        """
        record = self.make_record(seq, subject, event, stored_ns, now, traceparent)
        before = self.log.head
        self.log.append(record)
        if event.state:
            self.snapshot.put(record)
            self.stats.received["state"] += 1
        else:
            self.stats.received["log"] += 1
        if record.route.feeds:
            self.fanout.offer(record, before)

    def make_record(
        self,
        seq: int,
        subject: str,
        event: Event,
        stored_ns: int,
        received: float | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """Make the record of an event; ``received`` is when the relay took it in, if it just did."""
        route = self.fanout.route(subject)
        encoded = encode_event(route.prefix, seq, event.payload)
        received = stored_ns / 1e9 if received is None else received
        return Record(
            seq, route, encoded, event.state, event.removed, received, event.timestamp, stored_ns, traceparent
        )

    def reject(self, seq: int, reason: str, stored_ns: int | None = None) -> None:
        """Pass over an event of the stream that breaks the contract."""
        self.log.advance(seq, stored_ns)
        self.stats.rejected[reason] = self.stats.rejected.get(reason, 0) + 1

    def tick(self, now: float) -> None:
        """Do what is due, heartbeats too when they would be late at the next call; called every ``TICK``."""
        self.sessions.tick(now)
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + max(0.0, self.settings.heartbeat_ms / 1000 - TICK)
            self.fanout.heartbeat(now)
            self.sessions.heartbeat(now)


__all__ = ["TICK", "Hub", "HubSettings"]
