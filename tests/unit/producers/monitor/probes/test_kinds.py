"""The registry of probe kinds: a kind needs a module and a registry entry, and no other change."""

import asyncio
import importlib
import pkgutil
from pathlib import Path
from typing import Literal, get_args

import pytest
from tickertape.contracts.events import Status
from tickertape.producers.monitor import probes
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.problems import MonitorFileError
from tickertape.producers.monitor.config.validate import check
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.majority import View
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.metrics import probe_metrics
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import ProbeScheduler
from tickertape.producers.monitor.probes import KINDS, ProbeContext, ProbeSettings

from tests.support.patience import PATIENCE


class DoorState:
    """State of the probe kind defined here."""

    def __init__(self) -> None:
        self.runs = 0


class DoorProbe(ProbeSettings):
    """Probe of a door that is closed at the first run and open afterwards."""

    target = "door"
    kind: Literal["door"]
    door: str

    @property
    def listens_to(self) -> tuple[str, float]:
        return f"door.{self.door}", 5.0

    def unusable_reason(self) -> str | None:
        return None if self.door == "front" else f"there is no door {self.door!r}; use the front one"

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        state = context.state(DoorState)
        state.runs += 1
        if state.runs == 1:
            return Result(Outcome.FAILED, "the door is closed")
        return Result(Outcome.OK, None, 0.001)


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register the kind."""
    monkeypatch.setitem(KINDS, "door", DoorProbe)


def write_config(folder: Path, *settings: str) -> Path:
    path = folder / "gateways.yaml"
    gateway = "id: a, type: b, interval: 1ms, unhealthy_after: 1, healthy_after: 1"
    probe_texts = ", ".join(f"{{kind: door, {setting}}}" for setting in settings)
    path.write_text(f"gateways:\n  - {{{gateway}, probes: [{probe_texts}]}}\n", encoding="utf-8")
    return path


@pytest.mark.usefixtures("door")
def test_a_new_kind_runs_a_gateway(tmp_path: Path) -> None:
    """A gateway with a probe of the new kind is loaded from the file, probed, published and measured."""
    (gateway,) = load(write_config(tmp_path, "door: front")).resolve_gateways()
    monitored = MonitoredGateway(gateway, "m1", None, 0.0)
    views: list[View] = []

    async def work() -> None:
        healthy = asyncio.Event()

        def record(updated: MonitoredGateway) -> None:
            if (view := updated.own.take_new()) is not None:
                views.append(view)
            if updated.own.status is Status.HEALTHY:
                healthy.set()

        probing = ProbeScheduler({gateway.subject: monitored}, Failures(pytest.fail), record, pytest.fail)
        assert probing.patterns() == {"door.front": 5.0}
        task = asyncio.create_task(probing.run_check(monitored, 0, gateway.checks[0]))
        async with asyncio.timeout(PATIENCE):
            await healthy.wait()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())
    assert [str(view.status) for view in views] == ["UNHEALTHY", "HEALTHY"]
    assert views[0].details["error"] == "the door is closed"
    assert views[1].details["probes"] == {"door front": "HEALTHY"}
    success = next(probe_metrics([monitored], Failures(pytest.fail)))
    assert [(sample.labels["probe"], sample.value) for sample in success.samples] == [("door front", 1.0)]


@pytest.mark.usefixtures("door")
def test_a_new_kind_is_checked_and_named_in_errors(tmp_path: Path) -> None:
    """Settings and requirements of the new kind are checked, and errors list it among the known kinds."""
    path = write_config(tmp_path, "door: front, label: x, knob: 1", "label: y")
    unknown, missing = map(str, check(path))
    assert (
        f"{path}:2: gateways[0].probes[0].knob: is not a setting here; remove it, or use one of " in unknown
    )
    assert missing == f"{path}:2: gateways[0].probes[1].door: is missing; add 'door'"
    path = write_config(tmp_path, "door: back")
    (problem,) = map(str, check(path))
    assert problem == f"{path}:2: gateways[0].probes[0].door: there is no door 'back'; use the front one"
    path.write_text("gateways: [{id: a, type: b, probes: [{kind: window}]}]", encoding="utf-8")
    with pytest.raises(MonitorFileError, match=r"kind: is 'window'; use one of tcp, .*, door"):
        load(path)


def test_every_module_with_a_kind_is_registered() -> None:
    """``KINDS`` contains every kind that a probe module defines."""
    defined = {}
    for module in pkgutil.iter_modules(probes.__path__, f"{probes.__name__}."):
        for model in vars(importlib.import_module(module.name)).values():
            if isinstance(model, type) and issubclass(model, ProbeSettings):
                kinds = get_args(model.model_fields["kind"].annotation)
                defined.update(dict.fromkeys(kinds, model))
    assert defined == KINDS
