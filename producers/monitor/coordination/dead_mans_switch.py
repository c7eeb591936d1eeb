"""Dead man's switch: scheduled messages that NATS publishes when no monitor renews them any longer.

WATCHDOG holds one scheduled message per gateway, which the monitors keep postponing. If all monitors are dead
or offline, NATS publishes the message: the gateway becomes UNKNOWN, because no monitor probes it.

Invariant: a monitor that ignores its probe results because it is offline does not renew any switch.
"""

from collections.abc import Callable
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts import subjects
from tickertape.contracts.events import GatewayStatusChange, Status, format_time
from tickertape.producers.monitor.coordination.server_clock import ServerClock
from tickertape.producers.monitor.failures import describe_exception
from tickertape.producers.monitor.gateway.model import Gateway, Probe
from tickertape.producers.monitor.gateway.state import MONITOR_SILENT, GatewayState

from tickertape.names import Names
from tickertape.nats.streams import server_version

TIMEOUT_INTERVALS: Final = 2.5
"""Probe intervals of the gateway from a renewal until the switch fires: one renewal may be missed."""

MIN_TIMEOUT: Final = 1.0
"""Minimum seconds until a switch fires; with less, a busy machine would look dead."""

DISARM_TIMEOUT: Final = 5.0
"""Seconds for JetStream to acknowledge that a switch is disarmed."""

MIN_SERVER_VERSION: Final = (2, 12)
"""First version of nats-server with message schedules."""


def armed_subject(gateway: Gateway[Probe]) -> str:
    """Return the subject of a gateway's scheduled message, without the deployment's prefix."""
    return f"watchdog.armed.{_subject_tokens(gateway.type, gateway.id)}"


def fired_subject(gateway: Gateway[Probe]) -> str:
    """Return the subject that NATS publishes on; EVENTS stores the message as the gateway's status."""
    return f"watchdog.fired.{_subject_tokens(gateway.type, gateway.id)}"


def _subject_tokens(gateway_type: str, gateway_id: str) -> str:
    return f"{subjects.escape(gateway_type)}.{subjects.escape(gateway_id)}"


class DeadMansSwitch:
    """Dead man's switches of a monitor's gateways.

    Args:
        client: connected NATS client.
        names: subject and stream names of the deployment.
        report: receives lines for the operator.

    Attributes:
        supported: whether the server has message schedules.
        clock: clock by which the schedules run.
    """

    def __init__(self, client: Client, names: Names, report: Callable[[str], None]) -> None:
        self._client = client
        self._report = report
        self._names = names
        self.supported = server_version(client) >= MIN_SERVER_VERSION
        self.clock = ServerClock(client, names.stream("WATCHDOG"))

    async def renew(self, state: GatewayState[Probe]) -> None:
        """Postpone the switch of a gateway without an acknowledgement; losing one renewal is harmless."""
        if not self.supported or not self._client.is_connected:
            return
        gateway = state.gateway
        # The event is written now but published when it is due, so it has that time.
        due = self.clock.now() + max(MIN_TIMEOUT, TIMEOUT_INTERVALS * gateway.interval)
        event = GatewayStatusChange(
            timestamp=format_time(due),
            gateway_id=gateway.id,
            gateway_type=gateway.type,
            previous_status=state.status,
            current_status=Status.UNKNOWN,
            metadata={
                "reason": MONITOR_SILENT,
                "since": format_time(due),
                "monitor": state.monitor,
                "labels": gateway.labels,
                **({"group": gateway.group} if gateway.group is not None else {}),
            },
        )
        headers = {
            "Nats-Schedule": f"@at {format_time(due)}",
            # It must be another subject of the same stream; EVENTS copies it from there to the gateway's
            # status.
            "Nats-Schedule-Target": self._names.subject(fired_subject(gateway)),
        }
        try:
            subject = self._names.subject(armed_subject(gateway))
            await self._client.publish(subject, event.encode(), headers=headers)
        except NatsError:
            return  # the connection is closing, which the owner of the connection reports

    async def disarm(self, gateway_type: str, gateway_id: str) -> None:
        """Disarm the switch of a gateway that is no longer monitored.

        A message without a schedule replaces it and expires soon after, so that a monitor does not need the
        permission to purge. A failure is reported.
        """
        if not self.supported:
            return
        try:
            subject = self._names.subject(f"watchdog.armed.{_subject_tokens(gateway_type, gateway_id)}")
            await self._client.jetstream().publish(
                subject, b"", timeout=DISARM_TIMEOUT, headers={"Nats-TTL": "1s"}
            )
        except Exception as error:  # whatever it is, it concerns this gateway alone
            self._report(f"the switch of {gateway_id} may still fire once: {describe_exception(error)}")
