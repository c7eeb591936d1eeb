"""Group commit: the batches of many file streams become one atomic batch of JetStream.

An atomic batch costs nats-server several milliseconds, however few messages it has. So the batches that are
ready at the same time share one, each with the condition on its own checkpoint.

Invariants:

1. A group is stored completely or not at all; it is rejected if one of its conditions does not hold.
2. The checkpoints are the last messages of a group, in the order of its entries, so that the sequence of the
   commit tells that of each.
3. Nothing waits for more entries while no group is in flight.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from tickertape.producers.shipper.sinks.sink import OutgoingEvent

MAX_MESSAGES: Final = 1_000
"""Messages of an atomic batch that JetStream accepts."""

MAX_GROUP_BYTES: Final = 1024 * 1024
"""Bytes of events and checkpoints after which a group is closed, unless its first entry has more."""

MAX_IN_FLIGHT: Final = 8
"""Groups that are sent simultaneously."""

_FULL: Final = 0.5
"""Share of a full group that is sent although another group is in flight."""


class Outcome(NamedTuple):
    """Outcome of an attempt to store a group.

    Attributes:
        sequence: sequence of the checkpoint of this entry; 0 if nothing was stored, or that is not known.
        code: JetStream error code; 0 for none.
        problem: error to report; empty for none.
        shared: other entries were in the same group, one of which may have caused the error.
    """

    sequence: int
    code: int
    problem: str
    shared: bool = False


@dataclass(slots=True, eq=False)
class Entry:
    """Batch of a file stream that is to be stored.

    Attributes:
        events: events of the batch.
        subject: subject of the checkpoint in NATS.
        body: encoded checkpoint.
        expected: sequence of the previous checkpoint.
        alone: share the atomic batch with no other entry.
        outcome: receives the outcome, or the exception that ended the attempt.
    """

    events: Sequence[OutgoingEvent]
    subject: str
    body: bytes
    expected: int
    alone: bool
    outcome: "asyncio.Future[Outcome]"
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = len(self.body) + sum(len(event.payload) for event in self.events)

    @property
    def messages(self) -> int:
        """Number of messages, with the checkpoint."""
        return len(self.events) + 1


class GroupCommit:
    """Queue of entries, and the groups in flight.

    Args:
        send: tries once to store entries; sets their outcomes, unless it raises.
    """

    def __init__(self, send: Callable[[list[Entry]], Coroutine[Any, Any, None]]) -> None:
        self._send = send
        self._queue: deque[Entry] = deque()
        self._in_flight: dict[asyncio.Task[None], list[Entry]] = {}
        self._is_scheduled = False

    async def submit(
        self, events: Sequence[OutgoingEvent], subject: str, body: bytes, expected: int, *, alone: bool
    ) -> Outcome:
        """Send a batch once, to be stored with its checkpoint; the arguments are those of ``Entry``.

        Raises:
            NatsError, OSError: the attempt failed.
        """
        loop = asyncio.get_running_loop()
        entry = Entry(events, subject, body, expected, alone, loop.create_future())
        self._queue.append(entry)
        if not self._is_scheduled:
            # Everything that is ready now comes before this call.
            self._is_scheduled = True
            loop.call_soon(self._start_groups)
        try:
            return await entry.outcome
        except asyncio.CancelledError:
            self._cancel_unused()
            raise

    def _start_groups(self) -> None:
        self._is_scheduled = False
        while (
            self._queue and len(self._in_flight) < MAX_IN_FLIGHT and (not self._in_flight or self._is_full())
        ):
            if group := self._take():
                task = asyncio.create_task(self._send(group))
                self._in_flight[task] = group
                task.add_done_callback(self._end_group)

    def _is_full(self) -> bool:
        """Return whether the queue has the better part of a group."""
        messages = size = 0
        for entry in self._queue:
            messages += entry.messages
            size += entry.bytes
            if entry.alone or messages >= _FULL * MAX_MESSAGES or size >= _FULL * MAX_GROUP_BYTES:
                return True
        return False

    def _take(self) -> list[Entry]:
        """Remove the entries of the next group from the queue; none if all were cancelled."""
        group: list[Entry] = []
        subjects = set[str]()
        messages = size = 0
        while self._queue:
            entry = self._queue[0]
            messages += entry.messages
            size += entry.bytes
            if group and (
                entry.alone
                or messages > MAX_MESSAGES
                or size > MAX_GROUP_BYTES
                or entry.subject in subjects  # a batch may change a subject with a condition once
            ):
                break
            self._queue.popleft()
            if entry.outcome.done():
                messages -= entry.messages
                size -= entry.bytes
                continue
            group.append(entry)
            subjects.add(entry.subject)
            if entry.alone:
                break
        return group

    def _end_group(self, task: "asyncio.Task[None]") -> None:
        group = self._in_flight.pop(task)
        error = None if task.cancelled() else task.exception()
        for entry in group:
            if not entry.outcome.done():
                if error is None:
                    entry.outcome.cancel()
                else:
                    entry.outcome.set_exception(error)
        self._start_groups()

    def _cancel_unused(self) -> None:
        """Cancel the groups of which no entry is waited for any more."""
        for task, group in self._in_flight.items():
            if all(entry.outcome.done() for entry in group):
                task.cancel()
