"""The dead man's switch: messages that NATS itself publishes when no monitor puts them off any more.

For each gateway a scheduled message lies in WATCHDOG and is renewed each round. When all monitors are dead,
or cannot reach anything, NATS publishes it: the gateway is UNKNOWN, because nobody watches.

Invariant: whoever judges nobody renews nothing.
"""

import time
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from tickertape.contracts import subjects
from tickertape.contracts.events import GatewayStatusChange, Status, format_time
from tickertape.producers.monitor.gateway.model import Gateway, Probe
from tickertape.producers.monitor.gateway.state import MONITOR_SILENT, Watch

from tickertape.names import Names
from tickertape.nats.streams import server_version

PATIENCE: Final = 2.5
"""Intervals of a gateway's most frequent probe from a renewal to the switch: one renewal may be missed."""

LEAST_PATIENCE: Final = 1.0
"""Seconds; below that a busy machine would look dead."""

DISARM_TIMEOUT: Final = 5.0
"""Seconds for JetStream to say that a switch is disarmed."""

NEEDS: Final = (2, 12)
"""Version of nats-server with message schedules."""


def armed(gateway: Gateway[Probe]) -> str:
    """Subject of its scheduled message, without the deployment's prefix."""
    return f"watchdog.armed.{_tokens(gateway.type, gateway.id)}"


def fired(gateway: Gateway[Probe]) -> str:
    """Subject that the schedule publishes on; EVENTS takes it in as the gateway's status."""
    return f"watchdog.fired.{_tokens(gateway.type, gateway.id)}"


def _tokens(gateway_type: str, gateway_id: str) -> str:
    return f"{subjects.escape(gateway_type)}.{subjects.escape(gateway_id)}"


class Watchdog:
    """Renews the switches of a monitor's gateways.

    Args:
        client: connected.
        names: the deployment.
    """

    def __init__(self, client: Client, names: Names) -> None:
        self._client = client
        self._names = names
        self.works = server_version(client) >= NEEDS

    async def renew(self, watch: Watch[Probe]) -> None:
        """Put the switch of a gateway off once more; what is lost on the way is renewed the next time."""
        if not self.works or not self._client.is_connected:
            return
        gateway = watch.gateway
        due = time.time() + max(LEAST_PATIENCE, PATIENCE * gateway.interval)
        event = GatewayStatusChange(
            timestamp=format_time(due),
            gateway_id=gateway.id,
            gateway_type=gateway.type,
            previous_status=watch.status,
            current_status=Status.UNKNOWN,
            metadata={
                "reason": MONITOR_SILENT,
                "since": format_time(due),
                "monitor": watch.monitor,
                "labels": gateway.labels,
                **({"group": gateway.group} if gateway.group is not None else {}),
            },
        )
        headers = {
            "Nats-Schedule": f"@at {format_time(due)}",
            "Nats-Schedule-Target": self._names.subject(fired(gateway)),
        }
        try:
            await self._client.publish(self._names.subject(armed(gateway)), event.encode(), headers=headers)
        except NatsError:
            return  # the connection is going; the rest of the monitor says so

    async def disarm(self, gateway_type: str, gateway_id: str) -> None:
        """Take the switch of a gateway that is no longer watched away.

        A message without a schedule takes its place, and is gone soon: so a monitor needs no right to purge.

        Raises:
            NatsError: JetStream does not take it.
        """
        if not self.works:
            return
        subject = self._names.subject(f"watchdog.armed.{_tokens(gateway_type, gateway_id)}")
        await self._client.jetstream().publish(
            subject, b"", timeout=DISARM_TIMEOUT, headers={"Nats-TTL": "1s"}
        )
