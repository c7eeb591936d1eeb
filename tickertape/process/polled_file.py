"""Configuration files that are loaded again when they change.

Invariants:

1. The last valid content stays in force until a newer one is loaded: content is parsed completely before it
   replaces the previous one.
2. A file that is modified in place is loaded once it stops changing; a replaced file is loaded immediately.
3. Each failure is logged once, however often the file is checked.
"""

import asyncio
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from tickertape.errors import ConfigurationError
from tickertape.process.files import Stamp, read_regular_file, read_stamp

T = TypeVar("T")


class PolledFile(ABC, Generic[T]):
    """Configuration file, and its last valid content.

    Replace the file atomically (write a new file, then rename it), so that a partial file is never loaded.

    Args:
        path: path of the file, which is loaded immediately.
        content: content that the first load replaces.
        max_bytes: maximum size; of a larger file, one byte more than that is passed to ``_parse``.
        poll_interval: seconds between two checks for changes: the maximum delay until a new file takes
            effect. A file that is modified in place takes up to twice as long.
        log: logger.

    Attributes:
        content: last valid content.
        valid: whether ``content`` is that of the file, as of the last check.

    Raises:
        ConfigurationError: the file is missing or invalid. Later failures are only logged.
    """

    _NAME: ClassVar[str]
    """Name of the file for messages."""

    _HINT: ClassVar[str]
    """Hint of the error for a file that cannot be read."""

    _ERROR: ClassVar[type[ConfigurationError]]
    """Class of errors."""

    def __init__(
        self, path: Path, content: T, max_bytes: int, poll_interval: float, log: logging.Logger
    ) -> None:
        self.content = content
        self.valid = False
        self._path = path
        self._max_bytes = max_bytes
        self._poll_interval = poll_interval
        self._log = log
        self._last_stamp: Stamp | None = None  # at the last check
        self._loaded_stamp: Stamp | None = None  # at the last load, valid or not
        self._logged_failure = ""
        self._lock = threading.Lock()  # a poll and a reload may run in two threads
        self._reload()

    @abstractmethod
    def _parse(self, data: bytes) -> T:
        """Parse the content.

        Raises:
            ConfigurationError: it is invalid.
        """

    @abstractmethod
    def _describe(self) -> str:
        """Return a description of the content, such as the number of its entries."""

    def poll(self) -> bool:
        """Load the file if it changed.

        Returns:
            True if its content differs from the previous one.
        """
        with self._lock:
            previous = self.content
            try:
                if not self._is_due():
                    return False
                self._load()
            except ConfigurationError as error:
                self.valid = False
                self._log_failure(error.message)
                return False
            if self._logged_failure:
                self._logged_failure = ""
                self._log.info("%s %s is valid again", self._NAME, self._path)
            return self.content != previous

    async def run(self, changed: Callable[[], None]) -> None:
        """Poll the file until cancelled.

        Args:
            changed: called after each change of the content.
        """
        while True:
            await asyncio.sleep(self._poll_interval)
            # In a thread, since a large file takes tens of milliseconds, and a network file system longer.
            if await asyncio.to_thread(self.poll):
                self._log.info("in force: %s", self._describe())
                changed()

    async def reload(self) -> str:
        """Load the file, changed or not, and return a description of what was loaded.

        Raises:
            ConfigurationError: the file is missing or invalid; the previous content stays in force.
        """
        await asyncio.to_thread(self._reload)
        return self._describe()

    def _reload(self) -> None:
        with self._lock:
            self._load()
            self._last_stamp = self._loaded_stamp
            self._logged_failure = ""

    def _is_due(self) -> bool:
        """Return whether the file has changed and may be loaded."""
        try:
            stamp = read_stamp(self._path)
        except OSError as error:
            # So that the file is loaded as soon as it is readable again, even if it is the same.
            self._last_stamp = self._loaded_stamp = None
            raise self._unreadable(error) from None
        replaced = self._last_stamp is None or stamp[2] != self._last_stamp[2]
        unchanged = stamp == self._last_stamp
        self._last_stamp = stamp
        # A file that was changed in place may still be incomplete but valid, and half a list of revocations
        # would reinstate tokens; the next check loads it if it has not changed again.
        return stamp != self._loaded_stamp and (replaced or unchanged)

    def _load(self) -> None:
        self.valid = False
        try:
            data, self._loaded_stamp = read_regular_file(self._path, self._max_bytes)
        except OSError as error:
            self._loaded_stamp = None
            raise self._unreadable(error) from None
        self.content = self._parse(data)
        self.valid = True

    def _unreadable(self, error: OSError) -> ConfigurationError:
        return self._ERROR(f"cannot read {self._NAME} {self._path}: {error.strerror}", self._HINT)

    def _log_failure(self, message: str) -> None:
        if message != self._logged_failure:
            self._logged_failure = message
            self._log.error("%s; the previous content stays in force: %s", message, self._describe())
