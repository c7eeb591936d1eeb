"""Recoveries of the monitored gateways: the attempts that are due, and their events.

Invariants:

1. An attempt is made only after NATS has stored ``started``, the event of the attempt, and a slot of the
   limit per hour.
2. If the monitor that makes the attempts dies, one of the others continues.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor import recovery_action
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.recovery_policy import NOT_CONFIGURED
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probes.context import HourlyLimits

LIMIT: Final = "recovery"
"""Kind of the limit of attempts per hour."""


class Recoveries:
    """Recoveries of a monitor.

    Args:
        status_publisher: queue of the events.
        limits: limits per hour.
        failures: keeps an unexpected failure of a recovery away from other gateways.
        start: starts a task that ends with the monitor.
        report: receives lines for the operator.
        now: returns UNIX seconds.
    """

    def __init__(
        self,
        status_publisher: StatusPublisher,
        limits: HourlyLimits,
        failures: Failures,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        report: Callable[[str], None],
        now: Callable[[], float],
    ) -> None:
        self._status_publisher = status_publisher
        self._limits = limits
        self._failures = failures
        self._start = start
        self._report = report
        self._now = now

    def proceed(self, monitored: MonitoredGateway, now: float) -> None:
        """Publish the recovery event of a gateway that is due, or start its attempt."""
        subject, recovery = monitored.recovery_subject, monitored.recovery
        # The preceding recovery event must be acknowledged first: its publish decides which monitor makes the
        # attempts.
        if subject is None or recovery is None or self._status_publisher.is_pending(subject):
            return
        if not recovery.is_attempt_due(now):
            self._publish(monitored.next_recovery_event(now))
        elif monitored.may_be_recovered and (monitored.attempt is None or monitored.attempt.done()):
            monitored.attempt = self._start(self._attempt(monitored))

    async def _attempt(self, monitored: MonitoredGateway) -> None:
        """Make an attempt if the limit per hour allows it, and if it is still due by then."""
        recovery = monitored.recovery
        assert recovery is not None
        with self._failures.isolate(monitored.gateway, "recovery", "attempt"):
            gateway = monitored.gateway
            allowed = await self._limits.take(LIMIT, (gateway.type, gateway.id), recovery.settings.per_hour)
            if allowed is None:
                recovery.postpone(self._now())
                return
            event = monitored.next_recovery_event(self._now(), allowed=allowed)
            stored = self._publish(event)
            if event is None or stored is None or event.phase != "attempt":
                return
            try:
                is_stored = await stored
                # Another monitor may have taken the recovery over, or the gateway be up again.
                is_own = recovery.owner is None and recovery.attempt == event.attempt
                if is_stored and is_own and monitored.may_be_recovered:
                    error = await recovery_action.attempt(recovery.settings, event)
                    if error is not None:
                        self._report(f"{gateway.id}: recovery attempt failed: {error}")
            finally:
                recovery.finish_attempt(self._now())

    def stop(self, monitored: MonitoredGateway) -> None:
        """Stop the recovery of a gateway for which none is configured any longer."""
        if monitored.attempt is not None:
            monitored.attempt.cancel()
        if monitored.recovery is not None:
            self._publish(monitored.recovery.stop(self._now(), NOT_CONFIGURED))

    def _publish(self, event: GatewayRecovery | None) -> asyncio.Future[bool] | None:
        if event is None:
            return None
        self._report(f"{event.gateway_id}: recovery {event.phase} {event.attempt}")
        return self._status_publisher.enqueue(event)
