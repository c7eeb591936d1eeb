"""Denied permissions: parses the reports of a server, and finds the operations that they concern.

No I/O and no clock.

Invariants:

1. A report fails every operation that waits for its subject, and no other. While permissions change, an
   operation that NATS accepted can wait for the same subject as one that it denied, so a failure says that an
   operation was not confirmed, not that it had no effect.
2. Memory is bounded by the operations that wait.
"""

import asyncio
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

PREFIX: Final = "permissions violation"

# Such as: Permissions Violation for Subscription to "log.>" using queue "q", or, when a reload of the server
# ends a subscription: ... to "log.>" (sid "7"). Anchored at the end, because a subject may contain quotes.
_REPORT: Final = re.compile(
    r'for (\w+) .*?"(.+?)"(?: using queue ".*")?(?: \(sid "(\d+)"\))?$', re.IGNORECASE | re.DOTALL
)
# The server quotes subjects as Go does.
_ESCAPE: Final = re.compile(
    r'\\(?:([abfnrtv\\"])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))', re.IGNORECASE
)
_CONTROLS: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


class Report(NamedTuple):
    """Report of a server about a denied permission.

    Attributes:
        action: ``publish`` or ``subscription``; empty if the text has another form.
        subject: subject or pattern; empty if the text has another form.
        sid: subscription that the server has ended; None if unknown.
    """

    action: str
    subject: str
    sid: int | None


def parse_report(text: str) -> Report:
    """Parse the text of a permissions violation, without its quotes."""
    found = _REPORT.search(text)
    if found is None:
        return Report("", "", None)
    return Report(found[1].lower(), _unquote(found[2]), None if found[3] is None else int(found[3]))


def _unquote(text: str) -> str:
    def replace(escape: re.Match[str]) -> str:
        if escape[1]:
            return _CONTROLS.get(escape[1], escape[1])
        if escape[2]:
            # A byte that is not UTF-8; lone surrogates stand for these in subjects.
            return bytes([int(escape[2], 16)]).decode("utf-8", "surrogateescape")
        return chr(int(escape[3] or escape[4], 16))

    return _ESCAPE.sub(replace, text)


class PendingOperations:
    """Operations that wait for a reply, by their subject."""

    def __init__(self) -> None:
        self._by_subject: dict[str, set[asyncio.Future[Any]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_subject.values()))

    def add(self, subject: str, future: "asyncio.Future[Any]") -> None:
        """Add an operation until its future is done."""
        self._by_subject.setdefault(subject, set()).add(future)
        future.add_done_callback(lambda done: self._remove(subject, done))

    @contextmanager
    def watch(self, subjects: Iterable[str]) -> "Iterator[asyncio.Future[Any]]":
        """Yield a future that fails when one of these subjects is denied."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        watched = set(subjects)
        for subject in watched:
            self._by_subject.setdefault(subject, set()).add(future)
        try:
            yield future
        finally:
            for subject in watched:
                self._remove(subject, future)
            future.cancel()
            if not future.cancelled():
                future.exception()  # retrieved, so that asyncio does not log it

    def fail(self, subject: str, make_error: Callable[[], Exception]) -> bool:
        """Fail the operations that wait for a subject, each with its own error; return if there were any."""
        futures = [future for future in self._by_subject.get(subject, ()) if not future.done()]
        for future in futures:
            future.set_exception(make_error())
        return bool(futures)

    def _remove(self, subject: str, future: "asyncio.Future[Any]") -> None:
        futures = self._by_subject.get(subject)
        if futures is not None:
            futures.discard(future)
            if not futures:
                del self._by_subject[subject]


__all__ = ["PREFIX", "PendingOperations", "Report", "parse_report"]
