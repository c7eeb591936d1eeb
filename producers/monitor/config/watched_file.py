"""Watched file of a monitor: loaded again when it has changed and is stable.

Invariants:

1. A file is loaded only after it has not changed for ``STABLE_AFTER``, also at the start: it may still be
   being written.
2. A file that is rejected changes nothing, whatever is wrong with it.
3. A file without half of the current gateways takes effect only if a reload is requested after it was
   rejected. At the start, it removes none of those from before.
"""

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from tickertape.producers.monitor.config.loader import file_version, load
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.config.problems import MonitorFileError
from tickertape.producers.monitor.failures import describe_exception

STABLE_AFTER: Final = 2.0
"""Seconds without a change after which a file counts as completely written."""

CHECK_INTERVAL: Final = 0.1
"""Seconds between two checks at the start whether the file has changed."""


async def wait_until_stable(path: Path, report: Callable[[str], None]) -> None:
    """Wait until a file has not changed for ``STABLE_AFTER``; a missing or an older file needs no wait.

    Args:
        path: path of the file.
        report: receives a line for the operator if there is a wait.
    """
    version = file_version(path)
    if version is None or time.time() - version[0] / 1e9 >= STABLE_AFTER:
        return
    report(f"{path} has just changed; waiting until it has not changed for {STABLE_AFTER:g} s")
    clock = asyncio.get_running_loop().time
    seen_at = clock()
    while clock() - seen_at < STABLE_AFTER:
        await asyncio.sleep(CHECK_INTERVAL)
        if (current := file_version(path)) != version:
            version, seen_at = current, clock()


class WatchedFile:
    """File of a monitor that may change.

    Args:
        path: path of the file, which has been loaded.
        report: receives lines for the operator.
        monotonic: returns monotonic seconds.

    Attributes:
        errors: number of rejected files.
        accepted: whether the latest file that was loaded is in effect.
        accepted_at: time of the latest load that was successful, UNIX seconds.
    """

    def __init__(
        self, path: Path, report: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.errors = 0
        self.accepted = True
        self.accepted_at = time.time()
        self._path = path
        self._report = report
        self._monotonic = monotonic
        self._loaded = self._seen = file_version(path)
        self._seen_at = float("-inf")
        self._requested = False
        self._awaits_confirmation = False

    def __repr__(self) -> str:
        return f"WatchedFile({self._path}, {'accepted' if self.accepted else 'rejected'})"

    def request_reload(self) -> None:
        """Load the file even if it has not changed, and also if it was rejected for removing gateways."""
        self._requested = True

    def may_remove(self, missing: int, total: int) -> bool:
        """Return whether the file that was loaded at the start may remove gateways of an earlier run.

        If it lacks so many that it may be incomplete, that is reported, and a requested reload confirms it.

        Args:
            missing: number of gateways that the file lacks.
            total: number of gateways of the earlier run.
        """
        if not _is_mistake(missing, total):
            return True
        self.accepted, self._awaits_confirmation = False, True
        self.errors += 1
        problem = self._describe_removal(missing, total)
        self._report(f"gateways that are not in the file are not removed: {problem}")
        return False

    async def poll(self, gateways: Collection[str]) -> MonitorConfig | None:
        """Load the file if it has changed and is stable, or if a reload is requested.

        Args:
            gateways: status subjects of the current gateways.

        Returns:
            the new settings; None if there are none, or if they are rejected, which is reported.
        """
        version, now = file_version(self._path), self._monotonic()
        if version != self._seen:
            self._seen, self._seen_at = version, now
        if version == self._loaded and not self._requested:
            return None
        if now - self._seen_at < STABLE_AFTER:
            return None
        confirmed = self._requested and self._awaits_confirmation and version == self._loaded
        # The version from before the load: a change while the file is read causes another load.
        self._requested, self._loaded = False, version
        problem = ""
        try:
            # In a thread, so that probes keep their schedule while a large file is parsed.
            config = await asyncio.to_thread(load, self._path)
            removed = set(gateways) - config.subjects
            self._awaits_confirmation = not confirmed and _is_mistake(len(removed), len(gateways))
            if self._awaits_confirmation:
                problem = self._describe_removal(len(removed), len(gateways))
        except MonitorFileError as error:
            problem = str(error)
        except Exception as error:  # rejected for whatever reason; the monitor must not end
            problem = f"{self._path} cannot be loaded: {describe_exception(error)}; undo the latest change"
        self.accepted = not problem
        if problem:
            self.errors += 1
            self._report(f"the changed file is rejected; the previous one stays in effect: {problem}")
            return None
        self.accepted_at = time.time()
        return config

    def _describe_removal(self, removed: int, total: int) -> str:
        return (
            f"{self._path} removes {removed} of {total} gateways, "
            "which may be a mistake; restore them, or confirm it with SIGHUP"
        )


def _is_mistake(removed: int, total: int) -> bool:
    """Return whether so many gateways are missing that the file may be incomplete."""
    return removed > 0 and (removed == total or (removed > 1 and 2 * removed >= total))
