"""A monitor that runs out of descriptors says so, instead of calling its gateways unhealthy."""

import asyncio
import errno
import re
from pathlib import Path
from typing import Any

import pytest
from tickertape.contracts.events import Status
from tickertape.producers.monitor import probe_scheduler
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.model import Silence
from tickertape.producers.monitor.metrics import probe_metrics
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import MAX_CONCURRENT_PROBES, ProbeScheduler, probe_slots

from tests.support.patience import PATIENCE
from tests.support.virtual_loop import VirtualLoop
from tickertape.net import outgoing


@pytest.mark.parametrize(
    ("descriptors", "expected"), [(20_000, MAX_CONCURRENT_PROBES), (256, 48), (64, 1), (16, 1), (1_600, 384)]
)
def test_probes_that_run_together_have_descriptors(descriptors: int, expected: int) -> None:
    """With few descriptors, probes wait for one another."""
    assert probe_slots(descriptors) == expected


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS])
def test_a_lack_of_descriptors_is_no_failure_of_a_gateway(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is reported, and the gateway keeps its status until the dead man's switch fires."""
    probe = (
        '{id: a, type: t, interval: 1ms, unhealthy_after: 1, probes: [{kind: tcp, address: "127.0.0.1:1"}]}'
    )
    (tmp_path / "gateways.yaml").write_text(f"gateways:\n  - {probe}\n")
    (gateway,) = load(tmp_path / "gateways.yaml").resolve_gateways()
    monitored = MonitoredGateway(gateway, "m1", None, 0.0)
    views: list[str] = []
    reports: list[str] = []
    exhausted = True

    async def connect(host: str, port: int) -> Any:
        raise OSError(number if exhausted else errno.ECONNREFUSED, "")

    monkeypatch.setattr(outgoing, "connect", connect)

    async def work() -> None:
        nonlocal exhausted
        refused = asyncio.Event()

        def record(updated: MonitoredGateway) -> None:
            if (view := updated.own.take_new()) is not None:
                views.append(str(view.status))
                refused.set()

        scheduler = ProbeScheduler(
            {gateway.subject: monitored}, Failures(reports.append), record, reports.append
        )
        task = asyncio.create_task(scheduler.run_check(monitored, 0, gateway.checks[0]))
        async with asyncio.timeout(PATIENCE):
            while scheduler.probes_run < 3:
                await asyncio.sleep(0.001)
            assert views == []
            assert not monitored.take_renewal(1e9)
            exhausted = False
            await refused.wait()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())
    assert views == ["UNHEALTHY"]
    assert monitored.take_renewal(1e9)
    assert len(reports) == 1
    assert reports[0].startswith("gateways cannot be probed: ")


def test_a_probe_without_a_verdict_changes_nothing(tmp_path: Path) -> None:
    """It neither changes a status nor shows that the monitor is online; its reason is reported once."""
    probe = "{kind: exec, command: [sh, -c, 'echo no license; exit 3'], label: risk}"
    gateways = f"gateways:\n  - {{id: a, type: t, interval: 1ms, unhealthy_after: 1, probes: [{probe}]}}\n"
    (tmp_path / "gateways.yaml").write_text(gateways)
    (gateway,) = load(tmp_path / "gateways.yaml").resolve_gateways()
    monitored = MonitoredGateway(gateway, "m1", None, 0.0)
    reports: list[str] = []

    async def work() -> None:
        failures = Failures(reports.append)
        scheduler = ProbeScheduler({gateway.subject: monitored}, failures, lambda *_: None, reports.append)
        task = asyncio.create_task(scheduler.run_check(monitored, 0, gateway.checks[0]))
        async with asyncio.timeout(PATIENCE):
            while scheduler.probes_run < 3:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})
        assert (monitored.own.take_new(), reports) == (None, ["a: no verdict from risk: no license"])
        assert not monitored.take_renewal(1e9)
        success = next(probe_metrics([monitored], failures))
        assert (success.name, success.samples) == ("probe_success", [])
        task = asyncio.create_task(scheduler.check_connectivity(lambda: gateway.checks))
        async with asyncio.timeout(PATIENCE):
            while scheduler.online:
                await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())


def test_the_check_of_the_monitors_own_network_survives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that cannot check whether it is online counts as offline, until it can."""
    check = '{kind: tcp, address: "127.0.0.1:1"}'
    gateway = f"gateways:\n  - {{id: a, type: t, interval: 1ms, probes: [{check}]}}\n"
    (tmp_path / "gateways.yaml").write_text(gateway)
    checks = load(tmp_path / "gateways.yaml").resolve_gateways()[0].checks

    async def connect(host: str, port: int) -> Any:
        raise OSError(errno.EMFILE, "")

    monkeypatch.setattr(outgoing, "connect", connect)

    async def work() -> None:
        scheduler = ProbeScheduler({}, Failures(print), lambda *_: None, lambda text: None)
        task = asyncio.create_task(scheduler.check_connectivity(lambda: checks))
        async with asyncio.timeout(PATIENCE):
            while scheduler.online:
                await asyncio.sleep(0.001)
        assert not task.done()
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(work())


def test_the_clock_of_a_probe_starts_when_the_session_opens(tmp_path: Path) -> None:
    """No message is missing that was due outside of the session, however long that was."""
    found: list[str] = []
    probe = "{kind: freshness, subject: md.a, within: 10s}"
    gateway = f"{{id: a, type: t, interval: 3s, unhealthy_after: 1, probes: [{probe}]}}"
    (tmp_path / "gateways.yaml").write_text(f"gateways:\n  - {gateway}\n")
    (settings,) = load(tmp_path / "gateways.yaml").resolve_gateways()

    async def confirm(seconds: float) -> bool:
        return True

    async def work() -> None:
        clock = asyncio.get_running_loop().time
        monitored = MonitoredGateway(settings, "m1", None, 0.0)
        monitored.close_session(clock())

        def record(updated: MonitoredGateway) -> None:
            if (view := updated.own.take_new()) is not None:
                found.append(f"{clock():.0f} {view.status}: {view.details['error']}")

        scheduler = ProbeScheduler({}, Failures(pytest.fail), record, pytest.fail, clock)
        freshness = scheduler.context.freshness
        freshness.confirm = confirm
        freshness.connect(0.0)
        freshness.listen("md.a", 0.0)
        task = asyncio.create_task(scheduler.run_check(monitored, 0, settings.checks[0]))
        await asyncio.sleep(1000)
        monitored.open_session(clock())
        await asyncio.sleep(9)
        assert found == []
        await asyncio.sleep(6)
        task.cancel()
        await asyncio.wait({task})

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work())
    assert len(found) == 1
    assert re.fullmatch(r"101[0-4] UNHEALTHY: no message in 1[0-4] s; expected one every 10 s", found[0])


@pytest.mark.parametrize(
    ("probe", "early"),
    [
        ('{kind: tcp, address: "127.0.0.1:1"}', True),
        (
            '{kind: fix, address: "h:1", sender_comp_id: A, target_comp_id: B, max_logons_per_hour: 36}',
            False,
        ),
    ],
)
def test_a_view_of_another_monitor_is_checked_early(
    probe: str, *, early: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An early probe is one more, at most twice per interval, and none that takes up a session or a logon."""
    gateway = f"{{id: a, type: t, interval: 100s, probes: [{probe}]}}"
    (tmp_path / "gateways.yaml").write_text(f"gateways:\n  - {gateway}\n")
    (settings,) = load(tmp_path / "gateways.yaml").resolve_gateways()
    times: list[float] = []

    async def work() -> None:
        clock = asyncio.get_running_loop().time
        monitored = MonitoredGateway(settings, "m1", None, 0.0)
        scheduler = ProbeScheduler({}, Failures(pytest.fail), lambda _: None, pytest.fail, clock)

        async def run(*_: Any) -> None:
            times.append(clock())

        monkeypatch.setattr(scheduler, "_run_once", run)
        monkeypatch.setattr(probe_scheduler, "JITTER", 0.0)
        task = asyncio.create_task(scheduler.run_check(monitored, 0, settings.checks[0]))
        while not times:
            await asyncio.sleep(1)
        for seconds in (20, 5, 60):
            await asyncio.sleep(seconds)
            monitored.probe_early()
        await asyncio.sleep(100)
        task.cancel()
        await asyncio.wait({task})

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work())
    offsets = [round(time - times[0], -1) for time in times[1:]]
    assert offsets == ([20, 90, 100] if early else [100])


def test_results_from_before_a_suspension_are_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that was stopped knows nothing, and ignores the failure of a probe that was under way."""
    probe = (
        '{id: a, type: t, interval: 1s, unhealthy_after: 2, probes: [{kind: tcp, address: "127.0.0.1:1"}]}'
    )
    (tmp_path / "gateways.yaml").write_text(f"gateways:\n  - {probe}\n")
    (gateway,) = load(tmp_path / "gateways.yaml").resolve_gateways()
    monitored = MonitoredGateway(gateway, "m1", None, 0.0)
    suspended = 0.0
    monkeypatch.setattr(probe_scheduler, "uptime", lambda: asyncio.get_running_loop().time() + suspended)
    reports: list[str] = []

    async def work() -> None:
        nonlocal suspended
        answers: asyncio.Queue[int] = asyncio.Queue()
        started = asyncio.Event()

        async def connect(host: str, port: int) -> Any:
            started.set()
            raise OSError(await answers.get(), "")

        async def fail() -> None:
            await started.wait()
            started.clear()
            answers.put_nowait(errno.ECONNREFUSED)

        monkeypatch.setattr(outgoing, "connect", connect)
        loop = asyncio.get_running_loop()
        scheduler = ProbeScheduler(
            {gateway.subject: monitored}, Failures(reports.append), lambda _: None, reports.append, loop.time
        )
        tasks = [
            asyncio.create_task(scheduler.run_check(monitored, 0, gateway.checks[0])),
            asyncio.create_task(scheduler.watch_suspensions()),
        ]
        await fail()
        await fail()
        await started.wait()
        assert monitored.own.status is Status.UNHEALTHY
        suspended = 60.0
        while not reports:
            await asyncio.sleep(0.1)
        views = [monitored.own.status]
        for _ in range(3):
            await fail()
            await asyncio.sleep(0.1)
            views.append(monitored.own.status)
        assert views == [Status.UNKNOWN, Status.UNKNOWN, Status.UNKNOWN, Status.UNHEALTHY]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work())
    assert reports == ["monitor was suspended for 60 s; earlier probe results are discarded"]


@pytest.mark.parametrize(("interval", "shared"), [("5s", True), ("100ms", False)])
def test_probes_that_are_due_together_share_a_wake_up(
    interval: str, *, shared: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Probes start within half a turn of their time, in turns; short intervals have shorter turns."""
    probe = '{kind: tcp, address: "127.0.0.1:1"}'
    lines = [f"  - {{id: g{n}, type: t, interval: {interval}, probes: [{probe}]}}" for n in range(50)]
    (tmp_path / "gateways.yaml").write_text("\n".join(["gateways:", *lines]))
    settings = load(tmp_path / "gateways.yaml").resolve_gateways()
    starts: list[tuple[float, float]] = []

    async def work() -> None:
        clock = asyncio.get_running_loop().time
        scheduler = ProbeScheduler({}, Failures(pytest.fail), lambda _: None, pytest.fail, clock)

        async def run(monitored: Any, index: int, check: Any, due: float, context: Any) -> None:
            starts.append((clock(), due))

        monkeypatch.setattr(scheduler, "_run_once", run)
        monitored = [MonitoredGateway(gateway, "m1", None, 0.0) for gateway in settings]
        tasks = [asyncio.create_task(scheduler.run_check(one, 0, one.gateway.checks[0])) for one in monitored]
        await asyncio.sleep(3 * settings[0].checks[0].interval)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work())
    turn = probe_scheduler.TURN if shared else 0.1 / 20
    assert len(starts) > 100
    assert all(abs(start - due) < turn / 2 + 1e-6 for start, due in starts)
    assert all(abs(start / turn - round(start / turn)) < 1e-3 for start, _ in starts)


def test_only_what_is_due_is_looked_after(tmp_path: Path) -> None:
    """A gateway needs attention for its session, the end of its silence, its recovery and its switch."""
    probe = '{kind: tcp, address: "127.0.0.1:1"}'
    lines = [
        "gateways:",
        f"  - {{id: plain, type: t, interval: 5s, probes: [{probe}]}}",
        f"  - {{id: recovered, type: t, recovery: {{command: ['true']}}, probes: [{probe}]}}",
    ]
    (tmp_path / "gateways.yaml").write_text("\n".join(lines))
    gateways = load(tmp_path / "gateways.yaml").resolve_gateways()
    plain, recovered = (MonitoredGateway(gateway, "m1", None, 0.0) for gateway in gateways)
    assert plain.is_due(100.0, 10.0)
    assert plain.take_renewal(10.0)
    assert plain.is_due(100.0, 10.0)
    plain.update_session(100.0)
    assert not plain.is_due(101.0, 14.9)
    assert plain.is_due(101.0, 15.0)
    plain.set_silence(Silence(110.0, "reason", "ops"), 101.0)
    assert [plain.is_due(now, 10.0) for now in (109.9, 110.0)] == [False, True]
    plain.set_silence(None, 101.0)
    plain.shift_clock(3600.0)
    assert plain.is_due(101.0, 10.0)
    recovered.update_session(100.0)
    recovered.take_renewal(10.0)
    assert recovered.is_due(101.0, 10.1)
