"""The handler for the standard ``logging``: a program's log becomes events, without the program ever waiting.

Invariants:

1. ``emit`` makes a payload and appends it to a queue; the network is a daemon thread's business alone.
2. Memory is bounded by ``capacity``: the oldest is dropped for the newest, counted, and told in one event.
3. No feedback: nothing that a thread of ours logs is shipped, and nothing of the loggers beneath it.
4. Each forked process has its own thread; what the parent had queued stays the parent's.
"""

import functools
import logging
import math
import os
import sys
from collections.abc import Mapping
from typing import Any, Final
from weakref import WeakSet

from tickertape.contracts.events import SystemLog
from tickertape.contracts.subjects import LEVELS
from tickertape.producers.sdk import trace_context as trace
from tickertape.producers.sdk.background_thread import BackgroundThread, in_background
from tickertape.producers.sdk.handoff_queue import Handoff, HandoffQueue
from tickertape.producers.sdk.log_record import level_of, payload_of
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.credentials import Access

CAPACITY: Final = 10_000
"""Events held while NATS is away."""

FLUSH_TIMEOUT: Final = 5.0

POLL: Final = 0.02
"""Seconds between looks at the queue: waking the thread would cost the program more than all of ``emit``."""

NOT_SHIPPED: Final = frozenset({"tickertape", "nats", "relay", "producers", "contracts", "websockets"})
"""Loggers that are never shipped, with their children: these speak while something is being shipped."""


class TickertapeHandler(logging.Handler):
    """Ships log records as ``system_log`` events on ``log.<level>.<source>``.

    It connects at the first record, in a daemon thread of its own, and costs the program microseconds::

        logging.getLogger().addHandler(TickertapeHandler("nats://127.0.0.1:4222", source="my_service"))

    The record's place and its extras are in the event's metadata, a traceback in ``metadata.exception``. With
    a formatter, the message is what that makes. ``logging.shutdown``, which Python calls at its end, flushes.

    Args:
        url: address of NATS; several with commas.
        source: name of the program, the last token of the subject.
        level: of the handler.
        capacity: events that wait while NATS is away; beyond, the oldest is dropped.
        prefix: the deployment's subject prefix.
        access: credentials and certificates; a mapping, as in ``logging.config``, is made into one.
        flush_timeout: seconds that ``flush`` and ``close`` may take.

    Raises:
        ValueError: an argument is not one.
    """

    def __init__(
        self,
        url: str = connection.DEFAULT_URL,
        source: str = "",
        *,
        level: int | str = logging.NOTSET,
        capacity: int = CAPACITY,
        prefix: str = "",
        access: Access | Mapping[str, str] | None = None,
        flush_timeout: float = FLUSH_TIMEOUT,
    ) -> None:
        super().__init__(level)
        if not source:
            raise ValueError("source is empty; name the program, as in source='my_service'")
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it is at least 1")
        Names(prefix)
        self.source = source
        self.flush_timeout = flush_timeout
        self._capacity = capacity
        self._subjects = {name: SystemLog.subject_of(level=name, source=source) for name in LEVELS}
        self._trace = trace.current_span()
        self._make = functools.partial(
            Publisher,
            url,
            access=Access(**access) if isinstance(access, Mapping) else access,
            prefix=prefix,
            name=source,
            deadline=math.inf,
            max_pending=capacity,
            when_full="drop_oldest",
            traceparent=_nothing,  # asked where the record is made
        )
        self._background: BackgroundThread | None = None
        self._late = 0  # records after the close
        self._emitted = 0
        self._in_vain = -1  # how many were emitted when a flush last waited in vain
        self._ended = False
        _handlers.add(self)

    def __repr__(self) -> str:
        return f"<TickertapeHandler {self.source} ({logging.getLevelName(self.level)})>"

    @property
    def dropped(self) -> int:
        """Records of this process that are not in the stream and will not be, as far as is known."""
        background = self._background
        return self._late + (background.dropped + background.failed if background else 0)

    def filter(self, record: logging.LogRecord) -> Any:
        """Leave out what would come back; asked before the handler's lock is taken."""
        if str(record.name).partition(".")[0] in NOT_SHIPPED or in_background():
            return False
        return super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record; never waits for the network."""
        try:
            if self._ended:
                self._late += 1
                return
            payload = payload_of(record, self.source, self.formatter)
            headers = trace.carried(None, self._trace) if self._trace else None
            background = self._background or self._start()
            self._emitted += 1
            background.put(Handoff(self._subjects[level_of(record.levelno)], payload, None, headers, None))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until everything emitted is in the stream, at most ``flush_timeout`` seconds."""
        background = self._background
        if background is None or self._ended or in_background():
            return
        before = self._emitted
        if not background.flush(self.flush_timeout):
            self._in_vain = before

    def close(self) -> None:
        """Flush, and end the thread; records that come later are counted as dropped."""
        background = self._background
        if background is not None and not self._ended and not in_background():
            self._ended = True
            # At the interpreter's end a flush comes first: waiting twice would help nobody.
            background.close(0.0 if self._in_vain == self._emitted else self.flush_timeout)
        self._ended = True
        _handlers.discard(self)
        super().close()

    def _start(self) -> BackgroundThread:
        # Under the handler's lock, which logging holds around emit.
        self._background = BackgroundThread(
            self._make, HandoffQueue(self._capacity), name=f"{self.source}: log", poll=POLL
        )
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            # Such a process ends without the interpreter's own end, hence without logging.shutdown.
            from multiprocessing.util import Finalize

            Finalize(None, _at_end_of_process, args=(self,), exitpriority=0)
        return self._background

    def _forked(self) -> None:
        self._background = None
        self._late = 0
        self._emitted = 0
        self._in_vain = -1


def _nothing() -> None:
    return None


def _at_end_of_process(handler: TickertapeHandler) -> None:
    handler.flush()


_handlers: WeakSet[TickertapeHandler] = WeakSet()


def _in_child() -> None:
    for handler in list(_handlers):
        handler._forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


__all__ = ["CAPACITY", "FLUSH_TIMEOUT", "NOT_SHIPPED", "POLL", "TickertapeHandler"]
