"""Unexpected failures of what runs for one gateway, kept away from other gateways and from the monitor.

Invariants:

1. An exception in an isolated block ends neither another gateway nor the monitor; a cancellation passes.
2. Each failure is counted, and is a line with the gateway; health events name it until the block succeeds.
"""

import time
import traceback
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Final, Literal, Protocol, TypeAlias

from nats.errors import Error as NatsError
from tickertape.contracts.subjects import unescape

from tickertape.errors import TickertapeError
from tickertape.rate_limit import RepeatFilter
from tickertape.text import count

Activity = Literal["configuration", "probe", "status", "session", "silence", "recovery", "switch", "metrics"]
"""Activity in which a gateway fails; a label of the metric."""

Key: TypeAlias = tuple[str, str, Activity, str]
"""Type and id of a gateway, activity, and name of the probe."""

REPORT_INTERVAL: Final = 60.0
"""Seconds after which the same failure of a gateway is reported again."""

MEMORY: Final = 600.0
"""Seconds for which a failure counts if its activity does not run again."""

MAX_NAMED: Final = 10
"""Failing gateways that a health event names."""

MAX_TEXT: Final = 200
"""Maximum characters of an exception's text."""


class Identified(Protocol):
    """Gateway as far as a report is concerned: its type and its id."""

    @property
    def id(self) -> str:
        """Id of the gateway."""

    @property
    def type(self) -> str:
        """Type of the gateway."""


class Failures:
    """Unexpected failures of gateways.

    Args:
        report: receives lines for the operator.
        monotonic: returns monotonic seconds.

    Attributes:
        counts: number of failures by type and id of the gateway, and activity.
    """

    def __init__(
        self, report: Callable[[str], None], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self.counts: Counter[tuple[str, str, Activity]] = Counter()
        self._report = report
        self._monotonic = monotonic
        self._reported = RepeatFilter(REPORT_INTERVAL)
        # By gateway, activity and probe: another probe of the gateway that works is no sign of recovery.
        self._current: dict[Key, tuple[float, str]] = {}

    def isolate(self, gateway: Identified, activity: Activity, probe: str = "") -> "_Isolated":
        """Report an exception of the block as a failure of its gateway, and raise nothing.

        Args:
            gateway: the gateway that the block belongs to.
            activity: what the block does.
            probe: name of the probe; empty for what concerns the whole gateway.
        """
        return _Isolated(self, (gateway.type, gateway.id, activity, probe))

    def add(self, key: Key, error: Exception) -> None:
        """Record the failure of an isolated block."""
        self._record(key, describe_exception(error))

    def end(self, key: Key) -> None:
        """Record that an isolated block has succeeded."""
        self._current.pop(key, None)

    def record(self, subject: str, error: Exception) -> None:
        """Record a failure in an event or a vote on a gateway, by its status or recovery subject."""
        kind, gateway_type, gateway_id = subject.split(".")[1:4]
        activity: Activity = "recovery" if kind == "recovery" else "status"
        key = (unescape(gateway_type), unescape(gateway_id), activity, "event")
        self._record(key, describe_exception(error))

    def forget(self, gateway: Identified, *, removed: bool = False) -> None:
        """Forget the current failures of a gateway with new settings; of a removed one, also their number."""
        for key in [key for key in self._current if key[:2] == (gateway.type, gateway.id)]:
            del self._current[key]
        for counted in [key for key in self.counts if removed and key[:2] == (gateway.type, gateway.id)]:
            del self.counts[counted]

    def current(self) -> dict[str, str]:
        """Return a description of the latest failure by ``type/id``, for at most ``MAX_NAMED`` gateways."""
        oldest = self._monotonic() - MEMORY
        texts: dict[str, str] = {}
        # A copy, because the thread that serves metrics changes it, too.
        for key, (failed_at, text) in list(self._current.items()):
            if failed_at < oldest:
                self._current.pop(key, None)
            else:
                texts[f"{key[0]}/{key[1]}"] = text
        return dict(list(texts.items())[-MAX_NAMED:])

    def _record(self, key: Key, problem: str) -> None:
        gateway_type, gateway_id, activity, probe = key
        self.counts[gateway_type, gateway_id, activity] += 1
        now = self._monotonic()
        subject = f"{activity} {probe}" if probe else activity
        self._current.pop(key, None)  # the latest failure comes last
        self._current[key] = now, f"{subject}: {problem}"
        text = f"{gateway_type}/{gateway_id}: unexpected error in {subject}: {problem}"
        if self._reported.allow(text, now):
            number = self.counts[gateway_type, gateway_id, activity]
            self._report(f"{text}; {count(number, 'failure')}, other gateways are not affected")


class _Isolated:
    """Block whose exception is a failure; a class, as a monitor enters thousands of blocks a second."""

    __slots__ = ("_failures", "_key")

    def __init__(self, failures: Failures, key: Key) -> None:
        self._failures = failures
        self._key = key

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            self._failures.end(self._key)
        elif isinstance(error, Exception):
            self._failures.add(self._key, error)
            return True
        return False


def describe_exception(error: BaseException) -> str:
    """Describe an exception in one line; an unexpected one has the place in the code that raised it."""
    if isinstance(error, TickertapeError | NatsError):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})" if frames else ""
    text = str(error)[:MAX_TEXT]
    return f"{type(error).__name__}{f': {text}' if text else ''}{place}"
