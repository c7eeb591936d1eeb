"""``tickertape serve``: configures the log and runs the relay or its supervisor.

The relay does not depend on the producers, so the handler that ships its log is created here.

A relay that ships its log also delivers it to clients, which must not cause further log lines. Invariants:

1. Lines that the shipping itself logs are not shipped.
2. At most ``RATE`` lines per second are shipped, in bursts of at most ``BURST``. The number of suppressed
   lines is logged to standard error, where all lines are logged.
"""

import logging
import time
from collections.abc import Callable
from typing import Any, Final

from tickertape import logging_setup as logs
from tickertape.process.console import print_notice
from tickertape.rate_limit import TokenBucket
from tickertape.relay.settings import ServeSettings

RATE: Final = 10.0
"""Maximum log lines per second that are shipped."""

BURST: Final = 100
"""Maximum log lines that are shipped in one burst."""

log = logging.getLogger("tickertape.shipping")


async def run(settings: ServeSettings) -> int:
    """Configure the log, and run a relay or, with several workers, the supervisor.

    Returns:
        the exit code.
    """
    try:
        set_up_log(settings)
    except logs.LogLevelError as error:
        print_notice("serve", str(error))
        return 1
    if settings.workers > 1:
        # Imported late: the supervisor does not need the code of the relay.
        from tickertape.relay.workers.supervisor import supervise

        return await supervise(settings)
    from tickertape.relay.server import serve

    return await serve(settings, shipping=shipping(settings))


def set_up_log(settings: ServeSettings, slot: int | None = None) -> None:
    """Configure the log.

    Args:
        settings: settings of the relay.
        slot: number of the worker, which its log lines include; None without workers.

    Raises:
        LogLevelError: the log level file contains no valid level.
    """
    path = settings.log_level_file
    logs.configure(settings.log_format, settings.log_level if path is None else logs.read_level(path), slot)


def shipping(settings: ServeSettings) -> logs.HandlerFactory | None:
    """Return the class of the handler that ships the log; None if the log is not shipped."""
    if not settings.log_ship:
        return None
    from tickertape.producers.sdk.background_thread import in_background
    from tickertape.producers.sdk.logging_handler import TickertapeHandler

    class RelayLogHandler(TickertapeHandler):
        """Handler that ships the log lines of the relay, which ``TickertapeHandler`` ignores."""

        def __init__(self, url: str) -> None:
            super().__init__(
                url,
                settings.log_ship,
                prefix=settings.subject_prefix,
                access=settings.access(),
                capacity=1_000,
                flush_timeout=2.0,
            )
            self._limit = ShippingLimit(time.monotonic)

        def filter(self, record: logging.LogRecord) -> Any:
            # Not super(): TickertapeHandler.filter rejects the lines of Tickertape's own loggers.
            if in_background() or record.name == log.name or not logging.Filterer.filter(self, record):
                return False
            if (suppressed := self._limit.admit()) is None:
                return False
            if suppressed:
                log.warning("%d log lines were not shipped: more than %g per second", suppressed, RATE)
            return True

    return RelayLogHandler


class ShippingLimit:
    """Rate limit for shipped log lines.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bucket = TokenBucket(RATE, BURST, clock())
        self._suppressed = 0

    def admit(self) -> int | None:
        """Admit or reject one line.

        Returns:
            the number of lines rejected since the last admitted line; None if this line is rejected.
        """
        if not self._bucket.allow(self._clock()):
            self._suppressed += 1
            return None
        suppressed, self._suppressed = self._suppressed, 0
        return suppressed
