"""Hub: receives events, sends batches, and owns the event log, the snapshot, the fan-out and the sessions.

Invariants:

1. Events are published in stream order, each once; the ingest guarantees it.
2. Every session that would have received an event that the stream lost receives a gap for it, before
   any later cursor.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from typing import Final

from tickertape.contracts.encode import encode_event
from tickertape.contracts.events import Event
from tickertape.relay.core.counters import Stats
from tickertape.relay.core.event_log import EventLog, Record
from tickertape.relay.core.fanout.fanout import Fanout
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.hub_settings import HubSettings
from tickertape.relay.core.session.session import Session
from tickertape.relay.core.session.sessions import Sessions
from tickertape.relay.core.snapshot import Snapshot
from tickertape.relay.core.where.conditions import Conditions

TICK: Final = 1.0
"""Seconds between two calls of ``tick``."""


def _raise(session: str, error: Exception) -> None:
    """Raise an internal error, so that it does not go unnoticed if the hub has no reporter."""
    raise error


class Hub:
    """Hub of one event log and many cursors.

    Args:
        settings: settings of the hub.
        wake: called when a flush is needed; not called again before that flush.
        fetch: called when a replay chunk is requested; None if the stream cannot be read.
        locate: called with a session whose position only the stream knows: ``locating`` has a cursor outside
            the log, or a time before it. The caller answers with ``sessions.start_located``.
        verify: returns the grant of a token, or raises ProtocolError; None without authentication.
        report: called once for a session that an internal error ends, with its id and the error.

    Attributes:
        generation: number of calls of ``begin``; it changes when the stream is replaced or has lost events.
    """

    def __init__(
        self,
        settings: HubSettings,
        wake: Callable[[], None],
        fetch: Callable[[], None] | None = None,
        locate: Callable[[Session], None] | None = None,
        verify: Callable[[str], Grant] | None = None,
        report: Callable[[str, Exception], None] = _raise,
    ) -> None:
        self.settings = settings
        self.stats = Stats()
        self.log = EventLog(settings.log_events, settings.log_bytes)
        self.snapshot = Snapshot()
        self.fanout = Fanout(
            self.log, self.snapshot, self.stats, settings.max_catch_up, wake, fetch, settings.replay_bytes
        )
        self.conditions = Conditions(self._records)
        self.sessions = Sessions(
            settings, self.log, self.fanout, self.conditions, self.stats, locate, verify, report
        )
        self.generation = 0
        self._heartbeat_at = 0.0

    def __repr__(self) -> str:
        return f"Hub({self.cursor()}, {len(self.sessions)} sessions, {self.fanout!r}, {self.log!r})"

    def _records(self) -> Iterator[Record]:
        """Return all events in memory that clients with a condition may be sent."""
        return chain(self.log, *self.fanout.replay_cache.chunks())

    @property
    def epoch(self) -> str:
        """Epoch of all cursors; "0" before ``begin``."""
        return self.fanout.epoch

    def cursor(self) -> str:
        """Return the cursor of the newest position that the relay has reached."""
        return self.fanout.cursor(self.log.head)

    def begin(self, epoch: str, head: int, stored_ns: int | None = None) -> None:
        """Start at a position of a stream; call this before anything else.

        Call it again if the stream was replaced, or has lost events that the relay had read: sessions receive
        a ``reset`` gap now, and a new snapshot when ``restart_sessions`` is called.

        Args:
            epoch: epoch of all cursors.
            head: sequence of the last message in the stream.
            stored_ns: time at which the stream stored that message, UNIX nanoseconds; None if unknown.
        """
        self.generation += 1
        # Read before the reset, which changes the epoch and the head that cursors are made of.
        cursors = self.sessions.cursors()
        self.log.reset(head, stored_ns)
        self.snapshot.clear()
        # In this order: the gap of a session ends at a cursor of the new epoch and head.
        self.fanout.reset(epoch)
        self.sessions.reset(cursors)

    def restart_sessions(self) -> None:
        """Send all sessions a new snapshot, once the newest states of the new stream are loaded."""
        self.sessions.send_snapshots()

    def refresh_sessions(self, now: float) -> None:
        """Send all sessions the newest states as of their positions; deleted events included some."""
        # After the flush, live members are at the head, where those of a feed share the encoded pieces.
        self.fanout.flush_live(now)
        self.sessions.send_snapshots()

    def load_state(self, seq: int, subject: str, event: Event, stored_ns: int) -> bool:
        """Put a state event into the snapshot; return whether it is new to the snapshot."""
        return event.state and self.snapshot.put(self.make_record(seq, subject, event, stored_ns))

    def publish(
        self,
        seq: int,
        subject: str,
        event: Event,
        stored_ns: int,
        now: float,
        traceparent: str | None = None,
    ) -> None:
        """Publish the next event of the stream.

        Args:
            seq: sequence of the event, greater than all previous ones.
            subject: subject as clients see it.
            event: decoded event.
            stored_ns: time at which the stream stored it, UNIX nanoseconds.
            now: UNIX seconds.
            traceparent: ``traceparent`` header of its message; None without this header.
        """
        record = self.make_record(seq, subject, event, stored_ns, now, traceparent)
        head = self.log.head  # the position of live members until the event is delivered
        self.log.append(record)
        if event.state:
            self.snapshot.put(record)
            self.stats.received["state"] += 1
        else:
            self.stats.received["log"] += 1
        self.fanout.offer(record, head)

    def make_record(
        self,
        seq: int,
        subject: str,
        event: Event,
        stored_ns: int,
        received: float | None = None,
        traceparent: str | None = None,
    ) -> Record:
        """Build the record of an event; ``received`` is the time of arrival of a live event, UNIX seconds."""
        route = self.fanout.route(subject)
        encoded = encode_event(route.prefix, seq, event.payload)
        received = stored_ns / 1e9 if received is None else received
        return Record(
            seq, route, encoded, event.state, event.removed, received, event.timestamp, stored_ns, traceparent
        )

    def reject(self, seq: int, reason: str, stored_ns: int | None = None) -> None:
        """Count an event that violates the contract, and advance past it."""
        self.log.advance(seq, stored_ns)
        self.stats.rejected[reason] = self.stats.rejected.get(reason, 0) + 1

    def tick(self, now: float, skew: float = 0.0) -> None:
        """Run timers, and send heartbeats that would be late at the next call; call this every ``TICK``.

        Args:
            now: UNIX seconds.
            skew: seconds by which the system clock is ahead of ``now``, because it was set.
        """
        self.sessions.set_clock_skew(skew)
        self.sessions.tick(now)
        if now >= self._heartbeat_at:
            self._heartbeat_at = now + max(0.0, self.settings.heartbeat_ms / 1000 - TICK)
            self.fanout.heartbeat(now)
            self.sessions.heartbeat(now)


__all__ = ["TICK", "Hub", "HubSettings"]
