"""Recovery events of all monitors, which decide who makes the attempts.

Invariant: a monitor starts no recovery of a gateway before it has read the latest event of its recovery.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import ValidationError
from tickertape.contracts.decode import decode
from tickertape.contracts.events import GatewayRecovery, Rejection
from tickertape.producers.monitor.coordination.status_publisher import StatusPublisher
from tickertape.producers.monitor.failures import Failures, describe_exception
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway

from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL
from tickertape.nats.provisioning import RETRY_DELAY
from tickertape.rate_limit import RepeatFilter
from tickertape.text import count

BATCH_SIZE: Final = 64
"""Concurrent direct gets."""


def parse_recovery(subject: str, body: bytes) -> GatewayRecovery | None:
    """Parse a recovery event; return None if it is invalid, since any client may publish to the stream."""
    if isinstance(decode(subject, body), Rejection):
        return None
    try:
        return GatewayRecovery.model_validate_json(body)
    except ValidationError:
        return None


def adopt_recovery(monitored: MonitoredGateway, event: GatewayRecovery) -> None:
    """Leave the recovery of a gateway to the monitor that published its latest event."""
    if monitored.recovery is not None:
        monitored.recovery_is_known = True
        author, reason = event.metadata.get("monitor"), event.metadata.get("reason")
        owner = author if isinstance(author, str) else None
        monitored.recovery.adopt(event.phase, event.attempt, owner, str(reason))


class RecoveryLoader:
    """Reader of the latest recovery event of each gateway, by which an unfinished recovery is continued.

    Args:
        names: subject and stream names of the deployment.
        gateways: the monitored gateways by status subject; a live view.
        failures: keeps an unexpected failure of a gateway's recovery away from the others.
        status_publisher: publisher that tracks the last sequence of each subject.
        report: receives lines for the operator.
    """

    def __init__(
        self,
        names: Names,
        gateways: Mapping[str, MonitoredGateway],
        failures: Failures,
        status_publisher: StatusPublisher,
        report: Callable[[str], None],
    ) -> None:
        self._names = names
        self._monitored = gateways
        self._failures = failures
        self._status_publisher = status_publisher
        self._report = report
        self._due = asyncio.Event()
        self._reports = RepeatFilter(DENIAL_REPORT_INTERVAL)

    def __repr__(self) -> str:
        return f"<RecoveryLoader {len(self._unknown())} unknown>"

    def request(self) -> None:
        """Read the events of the gateways that have been added."""
        self._due.set()

    async def run(self, client: Client) -> None:
        """Read the events whenever that is requested, until cancelled; repeat what NATS does not answer."""
        while True:
            await self._due.wait()
            self._due.clear()
            unknown = self._unknown()
            for start in range(0, len(unknown), BATCH_SIZE):
                await asyncio.gather(
                    *(self._load(client, one) for one in unknown[start : start + BATCH_SIZE])
                )
            if self._unknown():
                await asyncio.sleep(RETRY_DELAY)
                self._due.set()

    def _unknown(self) -> list[MonitoredGateway]:
        monitored = self._monitored.values()
        return [one for one in monitored if one.recovery is not None and not one.recovery_is_known]

    async def _load(self, client: Client, monitored: MonitoredGateway) -> None:
        subject = monitored.recovery_subject
        if subject is None:
            return
        with self._failures.isolate(monitored.gateway, "recovery", "peer"):
            stream = self._names.stream("EVENTS")
            try:
                message = await direct_get.get_last_message(client, stream, self._names.subject(subject))
            except (NatsError, OSError, TimeoutError) as error:
                text = describe_exception(error)
                if client.is_connected and self._reports.allow(text, time.monotonic()):
                    number = count(len(self._unknown()), "gateway")
                    self._report(f"recoveries of {number} cannot be read, so none is started: {text}")
                return
            # If a later event has been received since, it is adopted already.
            if message is not None and message.seq >= self._status_publisher.last_sequence(subject):
                self._status_publisher.record_sequence(subject, message.seq)
                if (event := parse_recovery(subject, message.data)) is not None:
                    adopt_recovery(monitored, event)
            monitored.recovery_is_known = True
