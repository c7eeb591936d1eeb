"""The registry of probe kinds: a kind is one module and one entry, and everything else follows."""

import asyncio
import importlib
import pkgutil
from pathlib import Path
from typing import Literal, get_args

import pytest
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor import probes
from tickertape.producers.monitor.config.loader import MonitorFileError, load
from tickertape.producers.monitor.config.validate import check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.metrics import probe_metrics
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import ProbeScheduler
from tickertape.producers.monitor.probes import KINDS, ProbeContext, ProbeSettings

from tests.support.patience import PATIENCE


class Doors:
    """Memory of the kind that is made here."""

    def __init__(self) -> None:
        self.looks = 0


class DoorProbe(ProbeSettings):
    """Looks at a door, which is open at every look but the first."""

    target = "door"
    kind: Literal["door"]
    door: str

    @property
    def pattern(self) -> str:
        return f"door.{self.door}"

    def unusable_reason(self) -> str | None:
        return None if self.door == "front" else f"there is no door {self.door!r}; use the front one"

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        memory = context.state(Doors)
        memory.looks += 1
        if memory.looks == 1:
            return Result(Outcome.FAILED, "the door is closed")
        return Result(Outcome.OK, None, 0.001)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the kind, which is all that it takes."""
    monkeypatch.setitem(KINDS, "door", DoorProbe)


def written(folder: Path, *settings: str) -> Path:
    path = folder / "gateways.yaml"
    gateway = "id: a, type: b, interval: 1ms, unhealthy_after: 1, healthy_after: 1"
    found = ", ".join(f"{{kind: door, {one}}}" for one in settings)
    path.write_text(f"gateways:\n  - {{{gateway}, probes: [{found}]}}\n", encoding="utf-8")
    return path


@pytest.mark.usefixtures("door")
def test_a_new_kind_runs_a_gateway(tmp_path: Path) -> None:
    """From the file to the events and the metrics of its gateway."""
    (gateway,) = load(written(tmp_path, "door: front")).resolve_gateways()
    watched = MonitoredGateway(gateway, "m1", None, 0.0)
    changes: list[GatewayStatusChange] = []

    async def work() -> None:
        healthy = asyncio.Event()

        def tell(_: MonitoredGateway, change: GatewayStatusChange | None) -> None:
            if change is not None:
                changes.append(change)
            if watched.status is Status.HEALTHY:
                healthy.set()

        probing = ProbeScheduler({gateway.subject: watched}, tell, pytest.fail)
        assert probing.patterns() == {"door.front"}
        looking = asyncio.create_task(probing.run_check(watched, 0, gateway.checks[0]))
        async with asyncio.timeout(PATIENCE):
            await healthy.wait()
        looking.cancel()
        await asyncio.wait({looking})

    asyncio.run(work())
    assert [str(change.current_status) for change in changes] == ["UNHEALTHY", "HEALTHY"]
    assert changes[0].metadata["error"] == "the door is closed"
    assert changes[1].metadata["probes"] == {"door front": "HEALTHY"}
    success = next(probe_metrics([watched]))
    assert [(sample.labels["probe"], sample.value) for sample in success.samples] == [("door front", 1.0)]


@pytest.mark.usefixtures("door")
def test_a_new_kind_is_checked_and_named_in_errors(tmp_path: Path) -> None:
    """Its settings, what it needs of the machine, and its name among the kinds."""
    path = written(tmp_path, "door: front, label: x, knob: 1", "label: y")
    assert check(path) == [
        f"{path}:2: gateways[0].probes[0].knob: is not a setting; check its spelling, or remove it",
        f"{path}:2: gateways[0].probes[1].door: is missing; add it",
    ]
    path = written(tmp_path, "door: back")
    assert check(path) == [
        f"{path}:2: gateways[0].probes[0].door: there is no door 'back'; use the front one"
    ]
    path.write_text("gateways: [{id: a, type: b, probes: [{kind: window}]}]", encoding="utf-8")
    with pytest.raises(MonitorFileError, match=r"unknown kind 'window'; use one of tcp, .*, door"):
        load(path)


def test_every_module_with_a_kind_is_registered() -> None:
    """A new module is named here until ``KINDS`` has it, under the kind that it says."""
    found = {}
    for module in pkgutil.iter_modules(probes.__path__, f"{probes.__name__}."):
        for model in vars(importlib.import_module(module.name)).values():
            if isinstance(model, type) and issubclass(model, ProbeSettings):
                kinds = get_args(model.model_fields["kind"].annotation)
                found.update(dict.fromkeys(kinds, model))
    assert found == KINDS
