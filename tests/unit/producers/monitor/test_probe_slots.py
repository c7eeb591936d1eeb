"""Slots of the probes: gateways that fail, however many, leave slots to the others."""

import asyncio
import contextlib
import itertools
import random
from pathlib import Path
from typing import Any

import pytest
from tickertape.contracts.events import Status
from tickertape.producers.monitor import probe_scheduler, probes
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.failures import Failures
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probe_scheduler import ProbeScheduler
from tickertape.producers.monitor.probe_slots import ProbeSlots, Standing

from tests.support.virtual_loop import VirtualLoop

FAILED, NEW, ANSWERED = Standing
SLOTS, DEAD = 8, 60
TIMEOUT = 30.0


class Holders:
    """Tasks that hold slots until they are told to release them."""

    def __init__(self, total: int) -> None:
        self.slots = ProbeSlots(total)
        self.held: list[tuple[Standing, int]] = []
        self._release: dict[tuple[Standing, int], asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def add(self, *standings: Standing) -> None:
        """Let probes of these standings ask for slots, in this order."""
        for standing in standings:
            key = (standing, len(self._tasks))
            self._tasks.append(asyncio.create_task(self._hold(key)))
        await self.settle()

    async def settle(self) -> None:
        """Wait until each probe holds a slot or waits for one."""
        for _ in range(10):
            await asyncio.sleep(0)

    async def release(self, *numbers: int) -> None:
        """Let probes release their slots."""
        for key in [key for key in self.held if key[1] in numbers]:
            self._release[key].set()
        await self.settle()

    async def cancel(self, number: int) -> None:
        """Cancel a probe."""
        self._tasks[number].cancel()
        await self.settle()

    async def _hold(self, key: tuple[Standing, int]) -> None:
        async with self.slots.slot(key[0]):
            self.held.append(key)
            self._release[key] = asyncio.Event()
            with contextlib.suppress(asyncio.CancelledError):
                await self._release[key].wait()
            self.held.remove(key)

    def numbers(self) -> list[int]:
        """Return the probes that hold a slot."""
        return sorted(number for _, number in self.held)

    async def end(self) -> None:
        """End all probes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        assert sum(self.slots._taken.values()) == 0


def test_each_standing_has_its_share() -> None:
    """Failed probes take half of the slots, new ones a quarter more, and the rest is for the others."""

    async def work() -> None:
        holders = Holders(8)
        await holders.add(*[FAILED] * 10)
        assert holders.numbers() == [0, 1, 2, 3]
        await holders.add(*[NEW] * 10)
        assert holders.numbers() == [0, 1, 2, 3, 10, 11]
        await holders.add(*[ANSWERED] * 10)
        assert holders.numbers() == [0, 1, 2, 3, 10, 11, 20, 21]
        # In the order of their arrival, among those that may have one.
        await holders.release(20)
        assert holders.numbers() == [0, 1, 2, 3, 10, 11, 21, 22]
        await holders.release(0, 10)
        assert holders.numbers() == [1, 2, 3, 4, 11, 12, 21, 22]
        await holders.end()

    asyncio.run(work())


def test_the_one_that_has_waited_longest_is_next() -> None:
    """Probes that answer do not keep those that failed from their share."""

    async def work() -> None:
        holders = Holders(4)
        await holders.add(*[ANSWERED] * 4)
        await holders.add(FAILED, ANSWERED, NEW)
        await holders.release(0)
        assert holders.numbers() == [1, 2, 3, 4]
        await holders.release(1, 2)
        assert holders.numbers() == [3, 4, 5, 6]
        await holders.end()

    asyncio.run(work())


def test_a_cancelled_probe_takes_no_slot() -> None:
    """Neither one that waits, nor one that is cancelled just when it gets a slot."""

    async def work() -> None:
        holders = Holders(1)
        await holders.add(ANSWERED, ANSWERED, ANSWERED, ANSWERED)
        await holders.cancel(1)
        holders._release[ANSWERED, 0].set()
        while holders.numbers():
            await asyncio.sleep(0)
        await holders.cancel(2)
        assert holders.numbers() == [3]
        await holders.end()

    asyncio.run(work())


def test_any_order_of_events_keeps_the_limits() -> None:
    """Slots are neither lost nor given twice, and none is free while a probe may have it."""

    async def work(seed: int) -> None:
        chance = random.Random(seed)
        total = chance.randint(1, 9)
        holders = Holders(total)
        for _ in range(60):
            action = chance.randrange(3)
            if action == 0 or not holders._tasks:
                await holders.add(chance.choice(list(Standing)))
            elif action == 1 and holders.held:
                await holders.release(chance.choice(holders.numbers()))
            else:
                await holders.cancel(chance.randrange(len(holders._tasks)))
            held = [standing for standing, _ in holders.held]
            assert len(held) <= total
            assert held.count(FAILED) <= max(1, total // 2)
            for standing in Standing:
                waits = any(not future.done() for _, future in holders.slots._waiting[standing])
                assert not (waits and holders.slots._is_free(standing))
        await holders.end()

    for seed in range(20):
        asyncio.run(work(seed))


def test_failed_gateways_do_not_delay_the_probes_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of them take a slot until their timeout, each other probe starts in time."""
    probe = "probes: [{kind: tcp, address: '127.0.0.1:1', label: tcp}]"
    schedule = f"{{interval: 5s, timeout: {TIMEOUT:g}s, unhealthy_after: 1, healthy_after: 1}}"
    lines = [f"defaults: {schedule}", "gateways:"]
    lines += [f"  - {{id: g{number}, type: t, {probe}}}" for number in range(DEAD + 20)]
    (tmp_path / "gateways.yaml").write_text("\n".join(lines))
    gateways = load(tmp_path / "gateways.yaml").resolve_gateways()
    everything = [MonitoredGateway(gateway, "m1", None, 0.0) for gateway in gateways]
    healthy = {id(one.gateway.checks[0]) for one in everything[DEAD:]}
    for one in everything:
        outcome = Outcome.OK if id(one.gateway.checks[0]) in healthy else Outcome.FAILED
        one.record_result(0, Result(outcome), 0.0)
    monkeypatch.setattr(probe_scheduler, "raise_descriptor_limit", lambda: 64 + 4 * SLOTS)
    monkeypatch.setattr(probe_scheduler, "JITTER", 0.0)
    starts: dict[int, list[float]] = {}

    async def work() -> None:
        clock = asyncio.get_running_loop().time
        scheduler = ProbeScheduler({}, Failures(pytest.fail), lambda _: None, pytest.fail, clock)

        async def run(check: Any, context: Any) -> Result:
            starts.setdefault(id(check), []).append(clock())
            if id(check) in healthy:
                return Result(Outcome.OK)
            await asyncio.sleep(TIMEOUT)
            return Result(Outcome.FAILED)

        monkeypatch.setattr(probes, "run", run)
        tasks = [
            asyncio.create_task(scheduler.run_check(one, 0, one.gateway.checks[0])) for one in everything
        ]
        await asyncio.sleep(100)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(work())
    for one in everything[DEAD:]:
        assert one.own.status is Status.HEALTHY
        times = starts[id(one.gateway.checks[0])]
        gaps = [round(after - before, 3) for before, after in itertools.pairwise(times)]
        assert gaps == [5.0] * 19
    # Those that failed take turns.
    assert len(starts.keys() - healthy) >= 3 * SLOTS // 2
