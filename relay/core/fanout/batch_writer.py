"""Writing of batches to the members of feeds, and its statistics.

Invariant: an exception raised by a member's write fails that member; an exception raised while a batch is
encoded fails the live members of the feed. All other members are served.
"""

from collections.abc import Callable, Sized
from typing import Any, Final

from tickertape.relay.core.counters import Exemplar, Stats
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.fanout.batch import Batch
from tickertape.relay.core.fanout.feed import Feed, Member
from tickertape.relay.core.trace_context import may_be_traced

MAX_TRACE_CHECKS: Final = 16
"""Maximum number of events per flush that are checked for a trace, to become exemplars of the histograms."""


class BatchWriter:
    """Writer of batches and messages to members.

    Args:
        stats: statistics to update.
    """

    def __init__(self, stats: Stats) -> None:
        self._stats = stats
        self._trace_checks = 0  # checks left in this flush
        self._checked: Record | None = None  # the last event that was checked
        self._exemplar: Exemplar | None = None  # exemplar of that event, if it may belong to a trace

    def start_flush(self) -> None:
        """Renew the trace checks, whose number per flush is limited."""
        self._trace_checks, self._checked, self._exemplar = MAX_TRACE_CHECKS, None, None

    def fail_live(self, feed: Feed, error: Exception) -> None:
        """Fail the live members of a feed; members that are behind are not affected."""
        feed.clear()
        for member in list(feed.live):
            member.fail(error)

    def write(self, feed: Feed, senders: list[Callable[[Any], None]], data: Sized) -> None:
        """Write to live members of a feed; a failed write fails only its own member."""
        remaining = iter(senders)  # an iterator, so that the loop continues after a failed write
        done = False
        while not done:
            try:
                for send in remaining:  # the hottest loop of the relay, so the try is outside
                    send(data)
                done = True
            except Exception as error:
                for member in [m for m in feed.live if m.send is send]:
                    member.fail(error)

    def write_live(self, feed: Feed, batch: Batch, now: float) -> None:
        """Write a batch to the live members of a feed, once per encoding; ``now`` is UNIX seconds."""
        feed.cursor = batch.reached
        feed.writing = True  # a member that pauses during the write stays at the batch, not at the log's head
        members = 0
        try:
            for encoding, senders in feed.writers().items():
                data = batch.encoded(encoding)
                self.write(feed, senders, data)
                members += len(senders)
                self._count(batch, len(senders), len(data))
        except Exception as error:
            self.fail_live(feed, error)
        finally:
            feed.writing = False
        if batch.records:
            # One observation per batch, that of its oldest event: cheap, and never too low.
            oldest, delivered = batch.records[0], members * len(batch.records)
            if oldest is not self._checked and self._trace_checks:
                self._trace_checks -= 1
                self._checked = oldest
                self._exemplar = Exemplar(oldest, self._stats.unix(now)) if may_be_traced(oldest) else None
            exemplar = self._exemplar if oldest is self._checked else None
            self._stats.delay.observe(now - oldest.received, delivered, exemplar)
            self._stats.observe_age(self._stats.unix(now) - oldest.timestamp, delivered, exemplar)

    def deliver(self, member: Member, batch: Batch) -> None:
        """Write a batch to one member that catches up."""
        data = batch.encoded(member.encoding)
        member.send(data)
        self._count(batch, 1, len(data))

    def send_message(self, member: Member, data: Sized) -> None:
        """Write an encoded message, such as a piece of a snapshot, to one member."""
        member.send(data)
        self._stats.frames += 1
        self._stats.bytes += len(data)

    def _count(self, batch: Batch, members: int, size: int) -> None:
        stats = self._stats
        stats.frames += members * batch.count
        stats.bytes += members * size
        stats.delivered += members * len(batch.records)
        if batch.gap is not None:
            stats.gaps[batch.gap.reason] += members
            stats.dropped[batch.gap.reason] += members * batch.gap.dropped
        if batch.conflated:
            stats.conflated += members * batch.conflated
