"""The workers as one relay: its numbers, whether it is ready, its state."""

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp
from tickertape.relay.endpoints.routes import ops_app
from tickertape.relay.metrics.catalog import ProcessMetrics, RelayCollector, process_numbers
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.workers.ipc import SNAPSHOT_PATH
from tickertape.relay.workers.metrics_merge import decode_snapshot, merge_snapshots
from tickertape.relay.workers.worker_slot import WorkerSlot


class Aggregate:
    """What is told of all workers together.

    Args:
        host: first part of the relays' names.
        slots: the workers' places.

    Attributes:
        started: whether every slot was ready once.
        stopping: whether they are on their way out.
    """

    def __init__(self, host: str, slots: Sequence[WorkerSlot]) -> None:
        self.started = False
        self.stopping = False
        self._host = host
        self._slots = slots

    def __repr__(self) -> str:
        return f"Aggregate({self._slots})"

    def pages(self) -> ASGIApp:
        """Build the pages of the ops port."""
        return ops_app(self._registry, self.ready, self.status)

    async def ready(self) -> bool:
        """Tell whether clients should be sent here: at first once all workers serve, then while one does."""
        if not self.started or self.stopping:
            return False
        answers = await asyncio.gather(*(slot.ask("/readyz") for slot in self._slots if slot.ready))
        return any(answer is not None and answer[0] == 200 for answer in answers)

    async def collect(self) -> MetricsSnapshot:
        """Ask every worker for its numbers, and add them up."""
        await asyncio.gather(*map(self._hear, self._slots))
        own = MetricsSnapshot(process=process_numbers())
        return merge_snapshots([*(slot.totals.whole() for slot in self._slots), own])

    async def status(self) -> dict[str, Any]:
        """The state of each slot, and what its worker says of itself."""
        asking = asyncio.gather(*(slot.ask("/statusz") for slot in self._slots))
        ready, answers = await asyncio.gather(self.ready(), asking)
        states = [
            orjson.loads(answer[1]) if answer is not None and answer[0] == 200 else None for answer in answers
        ]
        now = asyncio.get_running_loop().time()
        sessions = [state["sessions"] for state in states if state]
        return {
            "version": next((state["version"] for state in states if state), None),
            "relay": self._host,
            "ready": ready,
            "sessions": {key: sum(one[key] for one in sessions) for key in ("open", "behind")},
            "slots": [
                {
                    "slot": slot.number,
                    "pid": slot.pid,
                    "state": _state(slot, answered=state is not None),
                    "seconds": round(now - slot.since, 1),
                    "restarts": max(0, slot.starts - 1),
                    "status": state,
                }
                for slot, state in zip(self._slots, states, strict=True)
            ],
        }

    async def _hear(self, slot: WorkerSlot) -> None:
        pid = slot.pid
        answer = await slot.ask(SNAPSHOT_PATH)
        # A worker that died meanwhile is buried with what it had said before.
        if answer is not None and answer[0] == 200 and slot.pid == pid:
            slot.totals.heard(decode_snapshot(answer[1]))

    async def _registry(self) -> CollectorRegistry:
        reading = await self.collect()
        made = CollectorRegistry(auto_describe=False)
        made.register(RelayCollector(lambda: reading))
        made.register(ProcessMetrics(reading.process))
        made.register(_Slots(self._slots))
        return made


class _Slots(Collector):
    def __init__(self, slots: Sequence[WorkerSlot]) -> None:
        self._slots = slots

    def collect(self) -> Iterable[Metric]:
        up = GaugeMetricFamily("tickertape_worker_ready", "1 while the slot's worker serves", labels=["slot"])
        restarts = CounterMetricFamily(
            "tickertape_worker_restarts", "Workers started in the place of one that died", labels=["slot"]
        )
        for slot in self._slots:
            up.add_metric([str(slot.number)], int(slot.ready))
            restarts.add_metric([str(slot.number)], max(0, slot.starts - 1))
        return [up, restarts]


def _state(slot: WorkerSlot, *, answered: bool) -> str:
    if slot.pid is None:
        return "waiting"
    if not slot.ready:
        return "starting"
    return "ready" if answered else "silent"
