"""Recovery of a nats-server on this machine from a full or read-only store: when to restart it.

Invariants:

1. A server is restarted only if files can be written to its store again, with some space to spare.
2. Restarts are paced: each one doubles the pause before the next, until the server has been healthy for long.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tickertape.nats.storage.embedded_config import find_limit
from tickertape.nats.storage.problems import StoreProblem

log = logging.getLogger("tickertape.nats")

MIN_FREE: Final = 16 * 1024 * 1024
"""Free bytes, or 5 % of a smaller disk, below which a restart is not worthwhile: the disk would be full again
within moments."""

PROBE_BYTES: Final = 1024 * 1024
"""Bytes that are written to find out whether there is space: quotas do not show in the free space."""

FIRST_PAUSE: Final = 5.0
"""Seconds between the first restart and a second one."""

MAX_PAUSE: Final = 300.0
"""Maximum seconds between two restarts, and seconds of health after which the pause is short again."""


class Recovery:
    """Decision about restarts of one server.

    Args:
        store: directory of the server's store.
        clock: returns seconds of a monotonic clock.
    """

    def __init__(self, store: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._store = store
        self._clock = clock
        self._problem: StoreProblem | None = None
        self._pause = FIRST_PAUSE
        self._restart_at = clock()

    def __repr__(self) -> str:
        return f"<Recovery of {self._store} {self._problem or 'healthy'}>"

    def check(self, problem: StoreProblem | None, limit: int = 0) -> bool:
        """Record the current state of the server; return whether to restart it now.

        Args:
            problem: why the server cannot store events; None if it can.
            limit: ``max_file_store`` of the server, which a restart raises if there is more space now.
        """
        now = self._clock()
        if problem is None:
            if self._problem is not None:
                log.warning("the embedded nats-server stores events again")
            self._problem = None
            if now >= self._restart_at + MAX_PAUSE:
                self._pause = FIRST_PAUSE
            return False
        if self._problem is None:
            log.error("%s; it is restarted when %s has space", problem.message, self._store)
        self._problem = problem
        if now < self._restart_at or not is_writable(self._store):
            return False
        if not problem.needs_restart and not self._limit_can_grow(limit):
            return False
        self._restart_at = now + self._pause
        self._pause = min(MAX_PAUSE, self._pause * 2)
        log.warning("%s has space: restarting the embedded nats-server", self._store)
        return True

    def _limit_can_grow(self, limit: int) -> bool:
        try:
            return storage_limit(self._store) >= limit + MIN_FREE
        except OSError:
            return False


def is_writable(store: Path) -> bool:
    """Return whether new data can be written to a store."""
    try:
        disk = os.statvfs(store)
        if disk.f_bavail * disk.f_frsize < min(MIN_FREE, disk.f_blocks * disk.f_frsize // 20):
            return False
        if not all(os.access(folder, os.W_OK | os.X_OK) for folder, _, _ in os.walk(store)):
            return False
        probe = store / "probe"
        try:
            with probe.open("wb") as file:
                file.write(bytes(PROBE_BYTES))
                file.flush()
                os.fsync(file.fileno())
        finally:
            probe.unlink(missing_ok=True)
    except OSError:
        return False
    return True


def storage_limit(store: Path) -> int:
    """Return ``max_file_store`` for a store: three quarters of the free space, as nats-server's own default.

    Unlike that default, it counts what the store contains, and never shrinks: a server that is restarted on a
    nearly full disk would reject every event until its next restart.

    Args:
        store: directory of the store, in the data directory of the server; may not exist yet.

    Raises:
        OSError: the disk cannot be examined.
    """
    used = 0
    for folder, _, names in os.walk(store):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # the server may be running
                used += os.lstat(os.path.join(folder, name)).st_size
    disk = os.statvfs(store.parent)
    return max(used + disk.f_bavail * disk.f_frsize * 3 // 4, find_limit(store.parent))
