"""All workers as one relay: merged metrics, readiness and status."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import orjson
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp
from tickertape.relay.endpoints.routes import Readiness, ops_app
from tickertape.relay.metrics.catalog import ProcessMetrics, RelayCollector, process_numbers
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.workers.ipc import SNAPSHOT_PATH
from tickertape.relay.workers.metrics_merge import decode_snapshot, merge_snapshots
from tickertape.relay.workers.worker_slot import WorkerSlot


class Aggregate:
    """Metrics, readiness and status of all workers together.

    Args:
        host: host name, the first part of the relay names.
        slots: slots of the workers.

    Attributes:
        started: whether every slot has been ready at some time.
        stopping: whether the workers are being stopped.
    """

    def __init__(self, host: str, slots: Sequence[WorkerSlot]) -> None:
        self.started = False
        self.stopping = False
        self._host = host
        self._slots = slots

    def __repr__(self) -> str:
        return f"Aggregate({self._slots})"

    def ops_app(self, alive: Callable[[], bool]) -> ASGIApp:
        """Build the application of the ops port.

        Args:
            alive: returns whether the supervisor still runs.
        """
        return ops_app(self._registry, self.ready, self.status, alive)

    async def ready(self) -> Readiness:
        """Return whether the relay accepts clients, and what does not work.

        It becomes ready once all workers serve, and stays ready while at least one does.
        """
        if not self.started or self.stopping:
            return Readiness(False)
        # Asked each time: a worker that hangs, or has lost NATS, still has ``slot.ready`` set.
        responses = await asyncio.gather(*(slot.request("/readyz") for slot in self._slots if slot.ready))
        states = [Readiness.parse(*response) for response in responses if response is not None]
        problems = (state.problem for state in states if state.problem)
        return Readiness(any(state.ready for state in states), next(problems, ""))

    async def collect(self) -> MetricsSnapshot:
        """Request the metrics of every worker, and merge them."""
        await asyncio.gather(*map(self._collect_worker, self._slots))
        supervisor = MetricsSnapshot(process=process_numbers())
        return merge_snapshots([*(slot.metrics.total() for slot in self._slots), supervisor])

    async def status(self) -> dict[str, Any]:
        """Return the state of each slot with the status of its worker."""
        requests = asyncio.gather(*(slot.request("/statusz") for slot in self._slots))
        ready, responses = await asyncio.gather(self.ready(), requests)
        statuses = [
            orjson.loads(response[1]) if response is not None and response[0] == 200 else None
            for response in responses
        ]
        now = asyncio.get_running_loop().time()
        sessions = [status["sessions"] for status in statuses if status]
        transports: Counter[str] = Counter()
        for status in filter(None, statuses):
            transports.update(status["transports"])
        return {
            "version": next((status["version"] for status in statuses if status), None),
            "relay": self._host,
            "ready": ready.ready,
            "sessions": {key: sum(counts[key] for counts in sessions) for key in ("open", "behind")},
            "transports": dict(transports),
            "slots": [
                {
                    "slot": slot.number,
                    "pid": slot.pid,
                    "state": _state(slot, answered=status is not None),
                    "seconds": round(now - slot.changed_at, 1),
                    "restarts": max(0, slot.start_count - 1),
                    "status": status,
                }
                for slot, status in zip(self._slots, statuses, strict=True)
            ],
        }

    async def _collect_worker(self, slot: WorkerSlot) -> None:
        pid = slot.pid
        response = await slot.request(SNAPSHOT_PATH)
        # If the worker has died meanwhile, its counters are already retired and would count twice.
        if response is not None and response[0] == 200 and slot.pid == pid:
            slot.metrics.update(decode_snapshot(response[1]))

    async def _registry(self) -> CollectorRegistry:
        snapshot = await self.collect()
        registry = CollectorRegistry(auto_describe=False)
        registry.register(RelayCollector(lambda: snapshot))
        registry.register(ProcessMetrics(snapshot.process))
        registry.register(_SlotCollector(self._slots))
        return registry


class _SlotCollector(Collector):
    def __init__(self, slots: Sequence[WorkerSlot]) -> None:
        self._slots = slots

    def collect(self) -> Iterable[Metric]:
        ready = GaugeMetricFamily(
            "tickertape_worker_ready", "1 while the slot's worker serves", labels=["slot"]
        )
        restarts = CounterMetricFamily(
            "tickertape_worker_restarts", "Workers started to replace one that died", labels=["slot"]
        )
        for slot in self._slots:
            ready.add_metric([str(slot.number)], int(slot.ready))
            restarts.add_metric([str(slot.number)], max(0, slot.start_count - 1))
        return [ready, restarts]


def _state(slot: WorkerSlot, *, answered: bool) -> str:
    if slot.pid is None:
        return "waiting"
    if not slot.ready:
        return "starting"
    return "ready" if answered else "silent"
