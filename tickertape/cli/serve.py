"""``tickertape serve`` as the command line starts it: the log set up, and published too if that is asked for.

The relay itself knows no producers; the handler that ships its log comes from here.

A relay that ships its log also delivers it, and must not be moved by that to log more. Invariants:

1. Nothing that the shipping itself says is shipped.
2. Whatever else goes wrong, no more than ``BURST`` lines at once and ``RATE`` a second are; how many were
   left out is told on standard error, where all lines are.
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
BURST: Final = 100

log = logging.getLogger("tickertape.shipping")


async def run(settings: ServeSettings) -> int:
    """Set up the log, and serve: one relay in this process, or a supervisor with several.

    Returns:
        the exit code.
    """
    try:
        set_up_log(settings)
    except logs.LogLevelError as error:
        print_notice("serve", str(error))
        return 1
    if settings.workers > 1:
        # The supervisor needs no code of a relay's.
        from tickertape.relay.workers.supervisor import supervise

        return await supervise(settings)
    from tickertape.relay.server import serve

    return await serve(settings, shipping=shipping(settings))


def set_up_log(settings: ServeSettings, slot: int | None = None) -> None:
    """Log as the operator wants it.

    Args:
        settings: what the operator set.
        slot: of a worker, which its lines name.

    Raises:
        LogLevelError: the file with the level does not say one.
    """
    path = settings.log_level_file
    logs.configure(settings.log_format, settings.log_level if path is None else logs.read_level(path), slot)


def shipping(settings: ServeSettings) -> logs.HandlerFactory | None:
    """What makes the handler that ships the log, once NATS is known; None where none is asked for."""
    if not settings.log_ship:
        return None
    from tickertape.producers.sdk.background_thread import in_background
    from tickertape.producers.sdk.logging_handler import TickertapeHandler

    class OwnLines(TickertapeHandler):
        """Ships what the relay says, which other programs' handlers leave out."""

        def __init__(self, url: str) -> None:
            super().__init__(
                url,
                settings.log_ship,
                prefix=settings.subject_prefix,
                access=settings.access(),
                capacity=1_000,
                flush_timeout=2.0,
            )
            self._allowance = ShippingLimit(time.monotonic)

        def filter(self, record: logging.LogRecord) -> Any:
            if in_background() or record.name == log.name or not logging.Filterer.filter(self, record):
                return False
            if (left_out := self._allowance.take()) is None:
                return False
            if left_out:
                log.warning("%d lines were not shipped: more than %g a second", left_out, RATE)
            return True

    return OwnLines


class ShippingLimit:
    """How many lines may be shipped now.

    Args:
        clock: seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._bucket = TokenBucket(RATE, BURST, clock())
        self._left_out = 0

    def take(self) -> int | None:
        """Take one; how many were refused since the last that was not, None when this one is."""
        if not self._bucket.allow(self._clock()):
            self._left_out += 1
            return None
        left_out, self._left_out = self._left_out, 0
        return left_out
