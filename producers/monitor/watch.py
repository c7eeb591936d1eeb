"""One gateway under watch: results in, status changes out; no I/O and no clock.

Invariants:

1. An event is made exactly when the status changes, and once at the start when there is nothing newer.
2. ``previous_status`` of an event is ``current_status`` of the one before.
3. An event's ``metadata`` is enough to go on after a restart as if there had been none.
"""

from typing import Any

from contracts.events import GatewayStatusChange, Status, format_time
from producers.monitor.config import Gateway
from producers.monitor.health import Outcome, ProbeHealth, Result, adopted, combined
from producers.monitor.latest import Newest


class Watch:
    """A gateway, its status, and the state of its probes.

    Args:
        gateway: from the file.
        monitor: name of this monitor, kept in the events.
        newest: what LATEST says; None for a gateway that it does not know.
        now: UNIX seconds.
    """

    def __init__(self, gateway: Gateway, monitor: str, newest: Newest | None, now: float) -> None:
        self.gateway = gateway
        self.monitor = monitor
        known = newest is not None and newest.status is not Status.REMOVED
        self._before = newest.status if newest is not None else Status.UNKNOWN
        self.status = newest.status if newest is not None and known else Status.UNKNOWN
        self.since = newest.since if newest is not None and known else format_time(now)
        self.fresh = not known
        """True when the status has yet to be told."""

        if newest is not None and known:
            self.probes = [
                adopted(newest.status, newest.probes, check.probe.name) for check in gateway.checks
            ]
        else:
            self.probes = [ProbeHealth() for _ in gateway.checks]
        self._results: list[Result | None] = [None] * len(gateway.checks)

    def __repr__(self) -> str:
        return f"<Watch {self.gateway.id} {self.status} since {self.since}>"

    def first(self, now: float) -> GatewayStatusChange | None:
        """Event to begin with; None when LATEST says the same."""
        return self._event(self._before, now) if self.fresh else None

    def after(self, index: int, result: Result, now: float) -> GatewayStatusChange | None:
        """Take in a result; return the event of a change, or None.

        Args:
            index: place of the probe among the gateway's.
            now: UNIX seconds.
        """
        check = self.gateway.checks[index]
        self._results[index] = result
        self.probes[index] = self.probes[index].after(
            result.outcome, check.unhealthy_after, check.healthy_after
        )
        status = combined(self.status, (probe.status for probe in self.probes))
        if status is self.status:
            return None
        before, self.status, self.since = self.status, status, format_time(now)
        return self._event(before, now)

    def _event(self, before: Status, now: float) -> GatewayStatusChange:
        return GatewayStatusChange(
            timestamp=format_time(now),
            gateway_id=self.gateway.id,
            gateway_type=self.gateway.type,
            previous_status=before,
            current_status=self.status,
            metadata=self._metadata(),
        )

    def _metadata(self) -> dict[str, Any]:
        checks = self.gateway.checks
        metadata: dict[str, Any] = {
            "monitor": self.monitor,
            "since": self.since,
            "probes": {
                check.probe.name: str(probe.status) for check, probe in zip(checks, self.probes, strict=True)
            },
            "labels": self.gateway.labels,
        }
        if self.gateway.group is not None:
            metadata["group"] = self.gateway.group
        bad = [
            (check.probe.name, result)
            for check, result in zip(checks, self._results, strict=True)
            if result is not None and result.outcome is not Outcome.OK
        ]
        # A failure says more than slowness does.
        for name, result in sorted(bad, key=lambda item: item[1].outcome is not Outcome.FAILED)[:1]:
            metadata["probe"] = name
            metadata["error"] = result.error
        latencies = [result.latency for result in self._results if result and result.latency is not None]
        if latencies:
            metadata["latency_ms"] = round(max(latencies) * 1000, 1)
        return metadata


def removed(newest: Newest, monitor: str, now: float) -> GatewayStatusChange:
    """Event of a gateway that is no longer watched: it leaves snapshots."""
    return GatewayStatusChange(
        timestamp=format_time(now),
        gateway_id=newest.gateway_id,
        gateway_type=newest.gateway_type,
        previous_status=newest.status,
        current_status=Status.REMOVED,
        metadata={"monitor": monitor, "since": format_time(now)},
    )
