"""Handler for the standard ``logging`` that publishes records as events, without ever blocking the program.

Invariants:

1. ``emit`` encodes the record and appends it to a queue; only a daemon thread uses the network.
2. Memory is bounded by ``capacity``: beyond it the oldest events are dropped, counted and reported.
3. No feedback: records logged by a publisher's thread, or by the loggers it uses, are never published.
4. Each forked process has its own thread; records queued by the parent remain with the parent.
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
from tickertape.producers.sdk.log_record import encode_record, level_name
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.credentials import Access

CAPACITY: Final = 10_000
"""Events held while NATS is unreachable."""

FLUSH_TIMEOUT: Final = 5.0
"""Maximum seconds that ``flush`` and ``close`` wait."""

POLL_INTERVAL: Final = 0.02
"""Seconds between two polls of the queue: waking the thread would cost more than the rest of ``emit``."""

NOT_SHIPPED: Final = frozenset({"tickertape", "nats", "websockets"})
"""Loggers that are never published, including their children: they log while events are being published."""


class TickertapeHandler(logging.Handler):
    """Logging handler that publishes records as ``system_log`` events on ``log.<level>.<source>``.

    It connects on the first record, in a daemon thread; a call costs the program microseconds::

        logging.getLogger().addHandler(TickertapeHandler("nats://127.0.0.1:4222", source="my_service"))

    The event's metadata holds the record's location and extra fields, and a traceback in
    ``metadata.exception``. A formatter formats the message only. ``logging.shutdown``, which Python calls on
    exit, flushes the handler.

    Args:
        url: address of NATS; several are separated by commas.
        source: name of the program, the last token of the subject.
        level: minimum level of the handler.
        capacity: events held while NATS is unreachable; beyond it, the oldest is dropped.
        prefix: the deployment's subject prefix.
        access: credentials and certificates; ``logging.config`` may pass a mapping of its fields.
        flush_timeout: maximum seconds that ``flush`` and ``close`` wait.

    Raises:
        ValueError: ``source`` is empty, ``capacity`` is below 1, or ``prefix`` is illegal.
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
            raise ValueError("source is empty; set it to the program's name, as in source='my_service'")
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}; it must be at least 1")
        # Raises for an illegal prefix now; in the thread, no caller would see the error.
        Names(prefix)
        self.source = source
        self.flush_timeout = flush_timeout
        self._capacity = capacity
        self._subjects = {name: SystemLog.subject_of(level=name, source=source) for name in LEVELS}
        self._trace = trace.opentelemetry_provider()
        self._make_publisher = functools.partial(
            Publisher,
            url,
            access=Access(**access) if isinstance(access, Mapping) else access,
            prefix=prefix,
            name=source,
            deadline=math.inf,
            max_pending=capacity,
            when_full="drop_oldest",
            traceparent=trace.no_trace_context,  # added to the headers by emit, in the program's thread
        )
        self._background: BackgroundThread | None = None
        self._late_records = 0  # records emitted after close
        self._emitted = 0
        self._timed_out_at = -1  # value of _emitted at the last flush that timed out
        self._stopped = False
        _handlers.add(self)

    def __repr__(self) -> str:
        return f"<TickertapeHandler {self.source} ({logging.getLevelName(self.level)})>"

    @property
    def dropped(self) -> int:
        """Number of records of this process that were dropped or failed, and will not be in the stream."""
        background = self._background
        return self._late_records + (background.dropped + background.failed if background else 0)

    def filter(self, record: logging.LogRecord) -> Any:
        """Reject records that would cause feedback; called before the handler's lock is acquired."""
        if str(record.name).partition(".")[0] in NOT_SHIPPED or in_background():
            return False
        return super().filter(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, without waiting for the network."""
        try:
            if self._stopped:
                self._late_records += 1
                return
            payload = encode_record(record, self.source, self.formatter)
            headers = trace.with_traceparent(None, self._trace) if self._trace else None
            background = self._background or self._start()
            self._emitted += 1
            # No message id and no future: the publisher generates the former, and nothing in the program
            # waits.
            background.put(Handoff(self._subjects[level_name(record.levelno)], payload, None, headers, None))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Wait until every record is in the stream or has failed, for at most ``flush_timeout`` seconds."""
        background = self._background
        if background is None or self._stopped or in_background():
            return
        emitted = self._emitted
        if not background.flush(self.flush_timeout):
            self._timed_out_at = emitted

    def close(self) -> None:
        """Flush, and end the thread; later records are counted as dropped."""
        background = self._background
        if background is not None and not self._stopped and not in_background():
            self._stopped = True
            # logging.shutdown() calls flush() first: if that timed out, a second wait would be pointless.
            background.close(0.0 if self._timed_out_at == self._emitted else self.flush_timeout)
        self._stopped = True
        _handlers.discard(self)
        super().close()

    def _start(self) -> BackgroundThread:
        # Runs under the handler's lock, which logging holds around emit().
        self._background = BackgroundThread(
            self._make_publisher,
            HandoffQueue(self._capacity),
            name=f"{self.source}: log",
            poll_interval=POLL_INTERVAL,
        )
        process = sys.modules.get("multiprocessing.process")
        if process is not None and process.parent_process() is not None:
            # A multiprocessing child exits with os._exit(), hence without logging.shutdown().
            from multiprocessing.util import Finalize

            Finalize(None, _flush_on_exit, args=(self,), exitpriority=0)
        return self._background

    def _reset_after_fork(self) -> None:
        self._background = None
        self._late_records = 0
        self._emitted = 0
        self._timed_out_at = -1


def _flush_on_exit(handler: TickertapeHandler) -> None:
    handler.flush()


_handlers: WeakSet[TickertapeHandler] = WeakSet()


def _reset_in_child() -> None:
    for handler in list(_handlers):
        handler._reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_in_child)


__all__ = ["CAPACITY", "FLUSH_TIMEOUT", "NOT_SHIPPED", "POLL_INTERVAL", "TickertapeHandler"]
