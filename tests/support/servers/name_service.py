"""A name service in place of that of the machine, in which look-ups hang as with a silent DNS server."""

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tickertape.net import resolver


class NameService:
    """Answers of ``socket.getaddrinfo``; a name without one hangs, as long as the test runs.

    Attributes:
        calls: number of look-ups by name.
        now: seconds, for a resolver that uses them as its time.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.now = 1000.0
        self._answers: dict[str, str | OSError] = {}
        self._ended = False
        self._changed = threading.Condition()
        self._parse_numeric = socket.getaddrinfo

    def getaddrinfo(self, host: str, port: int, **options: Any) -> Any:
        """Return the answer for a name in place of the system."""
        if options.get("flags", 0) & socket.AI_NUMERICHOST:
            return self._parse_numeric(host, port, **options)
        with self._changed:
            self.calls[host] += 1
            self._changed.wait_for(lambda: host in self._answers or self._ended, PATIENCE)
            answer = self._answers.get(host, OSError("the test has ended"))
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answer, port))]

    def answer(self, host: str, answer: str | OSError) -> None:
        """Set the address of a name, or the error of its look-up, also for one that hangs."""
        with self._changed:
            self._answers[host] = answer
            self._changed.notify_all()

    def hang(self, host: str) -> None:
        """Let later look-ups of a name hang."""
        with self._changed:
            del self._answers[host]

    def end(self) -> None:
        """End the look-ups that hang."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()


@contextlib.contextmanager
def name_service(monkeypatch: pytest.MonkeyPatch) -> Iterator[NameService]:
    """Replace the name service of the machine."""
    service = NameService()
    # A name that was numeric in another name service would not be looked up.
    monkeypatch.setattr(resolver, "_parse_numeric", lru_cache(8)(resolver._parse_numeric.__wrapped__))
    monkeypatch.setattr(socket, "getaddrinfo", service.getaddrinfo)
    try:
        yield service
    finally:
        service.end()
