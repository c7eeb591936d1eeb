"""Memory of a relay: which share of the memory that its processes may use each large buffer gets.

Three buffers grow to their limit on a busy relay: the event log, the replayed chunks of the stream, and pages
of history. With 1 GiB or more they have their full sizes. The rest is for the interpreter (70 MiB per
process), clients, states, and the embedded NATS server.
"""

import logging
from dataclasses import dataclass
from typing import Final

from tickertape.relay.core.replay_cache import MAX_BYTES as MAX_REPLAY_BYTES
from tickertape.relay.core.replay_cache import MAX_CHUNK_BYTES
from tickertape.relay.endpoints.page_budget import MAX_BYTES as MAX_HISTORY_BYTES
from tickertape.relay.endpoints.page_budget import MAX_PAGE_BYTES

from tickertape.text import MIB, mib

MAX_LOG_BYTES: Final = 128 * MIB
"""Default size of the event log where memory is not scarce."""

MIN_LOG_BYTES: Final = 8 * MIB
"""Minimum default size of the event log."""

LOG_SHARE: Final = 8
"""The event log gets at most one part in this number."""

BUFFER_SHARE: Final = 16
"""Replayed chunks and pages of history get at most one part in this number, each."""

MIN_PROCESS_BYTES: Final = 128 * MIB
"""Memory below which a process cannot be expected to serve clients."""

log = logging.getLogger("tickertape")


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Sizes of the large buffers of one relay process.

    Attributes:
        limit: memory that all processes of the relay may use together, in bytes.
        workers: number of processes.
        log_bytes: maximum bytes of events in the event log.
        replay_bytes: maximum bytes of replayed chunks.
        page_bytes: maximum bytes of pages of history.
    """

    limit: int
    workers: int
    log_bytes: int
    replay_bytes: int
    page_bytes: int

    def problem(self) -> str | None:
        """Return why the relay may be killed for lack of memory, with numbers; None if it has enough."""
        share = self.limit // self.workers
        if share < MIN_PROCESS_BYTES:
            return (
                f"the memory limit of {mib(self.limit)} is {mib(share)} per process, and each needs at "
                f"least {mib(MIN_PROCESS_BYTES)}; raise the limit, or use fewer --workers"
            )
        if self.log_bytes > 2 * share // LOG_SHARE:
            return (
                f"--log-bytes of {mib(self.log_bytes)} is too much for the memory limit of {mib(share)} "
                f"per process; use at most {2 * share // LOG_SHARE // MIB} MiB, or raise the limit"
            )
        return None

    def report(self) -> None:
        """Log the sizes, or a warning if the memory does not suffice for them."""
        if (problem := self.problem()) is not None:
            log.warning("%s", problem)
        if self.limit // self.workers < LOG_SHARE * MAX_LOG_BYTES:
            log.info(
                "memory limit of %s: %s for events, %s for replays, %s for pages of history%s",
                mib(self.limit), mib(self.log_bytes), mib(self.replay_bytes), mib(self.page_bytes),
                ", in each worker" if self.workers > 1 else "",
            )  # fmt: skip


def make_budget(limit: int, log_bytes: int = 0, workers: int = 1) -> MemoryBudget:
    """Return the sizes of the buffers of a relay.

    Args:
        limit: memory that all processes of the relay may use together, in bytes.
        log_bytes: configured size of the event log; 0 derives it from the limit.
        workers: number of processes.
    """
    share = limit // workers
    return MemoryBudget(
        limit,
        workers,
        log_bytes or max(MIN_LOG_BYTES, min(MAX_LOG_BYTES, share // LOG_SHARE)),
        max(MAX_CHUNK_BYTES, min(MAX_REPLAY_BYTES, share // BUFFER_SHARE)),
        max(MAX_PAGE_BYTES, min(MAX_HISTORY_BYTES // workers, share // BUFFER_SHARE)),
    )
