"""One gateway under watch: results and others' words in, status changes out; no I/O and no clock.

Invariants:

1. An event is made when the status changes, once at the start when there is nothing newer, and once when
   flapping or a silence begins or ends; only then are its two statuses the same.
2. ``previous_status`` of an event is ``current_status`` of the one before, whoever told that.
3. An event's ``metadata`` is enough to go on after a restart as if there had been none.
4. A look that began before the newest word of another was heard says nothing against that word.
"""

from typing import Any, Final, Generic

from tickertape.contracts.events import GatewayStatusChange, Status, format_time, parse_time
from tickertape.producers.monitor.gateway.flapping import Flapping
from tickertape.producers.monitor.gateway.model import AnyProbe, Gateway, Newest, Silence
from tickertape.producers.monitor.gateway.probe_health import (
    RANKS,
    Outcome,
    ProbeHealth,
    Result,
    adopted,
    combined,
)

MONITOR_SILENT: Final = "monitor_silent"
"""Reason in an event that NATS itself published, because no monitor did."""

MONITOR_BACK: Final = "monitor_back"
SESSION_CLOSED: Final = "session_closed"
SESSION_OPEN: Final = "session_open"


class Watch(Generic[AnyProbe]):
    """A gateway, its status, and the state of its probes.

    Args:
        gateway: from the file.
        monitor: name of this monitor, kept in the events.
        newest: what LATEST says; None for a gateway that it does not know.
        now: UNIX seconds.
    """

    def __init__(self, gateway: Gateway[AnyProbe], monitor: str, newest: Newest | None, now: float) -> None:
        self.gateway = gateway
        self.monitor = monitor
        self.silence: Silence | None = None
        known = newest is not None and newest.status is not Status.REMOVED
        self._before = newest.status if newest is not None else Status.UNKNOWN
        self.status = newest.status if newest is not None and known else Status.UNKNOWN
        self.since = newest.since if newest is not None and known else format_time(now)
        self.fresh = not known
        """True when the status has yet to be told."""

        self.probes = [ProbeHealth() for _ in gateway.checks]
        self.results: list[Result | None] = [None] * len(gateway.checks)
        self._flapping = Flapping(gateway.flapping)
        self._heard = float("-inf")  # when the newest word of another came
        self._unjudged: set[int] = set()  # probes that have yet to show what became of a gateway unwatched
        self._reason: str | None = None
        self._told_silenced = newest is not None and newest.silenced
        if newest is not None and known:
            self._take_over(newest)

    def __repr__(self) -> str:
        return f"<Watch {self.gateway.id} {self.status} since {self.since}>"

    @property
    def flaps(self) -> bool:
        """True while its results go back and forth."""
        return self._flapping.flaps

    def first(self, now: float) -> GatewayStatusChange | None:
        """Event to begin with; None when LATEST says the same."""
        return self._event(self._before, now) if self.fresh else None

    def after(
        self, index: int, result: Result, now: float, began: float | None = None
    ) -> GatewayStatusChange | None:
        """Take in a result; return the event of a change, or None.

        Args:
            index: place of the probe among the gateway's.
            now: UNIX seconds.
            began: when the look began; now by default.
        """
        if (now if began is None else began) < self._heard or self.status is Status.OFF_SESSION:
            return None
        check = self.gateway.checks[index]
        self.results[index] = result
        if self._unjudged:
            return self._judge(index, result, now)
        self.probes[index] = self.probes[index].after(
            result.outcome, check.unhealthy_after, check.healthy_after
        )
        well = all(one is None or one.outcome is not Outcome.FAILED for one in self.results)
        turned = self._flapping.after(well)
        status = combined(self.status, (probe.status for probe in self.probes))
        if status is not self.status and not self._must_stay(status, now):
            return self._change(status, now)
        return self._event(self.status, now) if turned else None

    def adopt(self, newest: Newest, now: float) -> GatewayStatusChange | None:
        """Take over what another has told: a monitor on the same file, the gateway itself, or NATS.

        Args:
            newest: that event.
            now: UNIX seconds.

        Returns:
            what has to be told in answer: the status that is true, when NATS says that nobody watches.
        """
        if newest.reason == MONITOR_SILENT and all(result is not None for result in self.results):
            # NATS was away, and we were not: what we found meanwhile counts.
            before, self.status = self.status, newest.status
            status = before if before is Status.OFF_SESSION else self._verdict()
            return self._change(status, now, MONITOR_BACK)
        if newest.status is Status.REMOVED:
            # It left another monitor's file, and is still in ours.
            status, self.status = self.status, newest.status
            return self._change(status, now)
        self._heard = now
        self.since = newest.since
        self._told_silenced = newest.silenced
        self._flapping.agree(newest.flapping)
        if newest.status is not self.status:
            self.status = newest.status
            self._take_over(newest)
        return None

    def close(self, now: float) -> GatewayStatusChange | None:
        """Its exchange has closed: it is not probed, and nothing about it alarms anyone."""
        if self.status is Status.OFF_SESSION:
            return None
        self._start_over()
        return self._change(Status.OFF_SESSION, now, SESSION_CLOSED)

    def open(self, now: float) -> GatewayStatusChange | None:
        """Its exchange has opened: it is UNKNOWN until its probes have shown otherwise."""
        if self.status is not Status.OFF_SESSION:
            return None
        self._start_over()
        return self._change(Status.UNKNOWN, now, SESSION_OPEN)

    def blind(self) -> None:
        """The monitor reaches nothing: what it found before says nothing about now."""
        self.results = [None] * len(self.gateway.checks)

    def quiet(self, silence: Silence | None, now: float) -> GatewayStatusChange | None:
        """Begin, change or end a silence; return the event that says so."""
        if silence is not None and silence.until <= now:
            silence = None
        if silence == self.silence:
            return None
        self.silence = silence
        # Another monitor may have said so already; who changes a silence that is told need not say it.
        return self._event(self.status, now) if (silence is not None) is not self._told_silenced else None

    # Inside.

    def _judge(self, index: int, result: Result, now: float) -> GatewayStatusChange | None:
        """Without thresholds: nobody has watched, so nothing is known that could be doubted."""
        self.probes[index] = ProbeHealth().after(result.outcome, 1, 1)
        self._unjudged.discard(index)
        if self._unjudged:
            return None
        status = self._verdict()
        return None if status is self.status else self._change(status, now, MONITOR_BACK)

    def _verdict(self) -> Status:
        return combined(Status.UNKNOWN, (probe.status for probe in self.probes))

    def _must_stay(self, status: Status, now: float) -> bool:
        better = RANKS.get(status, 0) > RANKS.get(self.status, 0)
        if not better or self.status is Status.UNKNOWN:
            return False
        # One that began in the future was told by a host whose clock is ahead; it binds nobody.
        return 0 <= now - parse_time(self.since).timestamp() < self.gateway.dwell

    def _change(self, status: Status, now: float, reason: str | None = None) -> GatewayStatusChange:
        before, self.status, self.since = self.status, status, format_time(now)
        self._reason = reason
        self._unjudged.clear()
        return self._event(before, now)

    def _take_over(self, newest: Newest) -> None:
        names = [check.probe.name for check in self.gateway.checks]
        self.probes = [adopted(newest.status, newest.probes, name) for name in names]
        self._reason = newest.reason
        self._unjudged = set(range(len(names))) if newest.reason == MONITOR_SILENT else set()

    def _start_over(self) -> None:
        self.probes = [ProbeHealth() for _ in self.gateway.checks]
        self.results = [None] * len(self.gateway.checks)
        self._flapping.forget()

    def _event(self, before: Status, now: float) -> GatewayStatusChange:
        self._told_silenced = self.silence is not None
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
        if self._reason is not None:
            metadata["reason"] = self._reason
        if self._flapping.flaps:
            metadata["flapping"] = True
        if self.silence is not None:
            until = format_time(self.silence.until)
            metadata["silenced"] = {"until": until, "reason": self.silence.why, "by": self.silence.by}
        bad = [
            (check.probe.name, result)
            for check, result in zip(checks, self.results, strict=True)
            if result is not None and result.outcome is not Outcome.OK
        ]
        # A failure says more than slowness does.
        for name, result in sorted(bad, key=lambda item: item[1].outcome is not Outcome.FAILED)[:1]:
            metadata["probe"] = name
            metadata["error"] = result.error
        latencies = [result.latency for result in self.results if result and result.latency is not None]
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
