"""Unexpected failures of gateways: what is counted, reported and named, and for how long."""

import asyncio
from dataclasses import dataclass

import pytest
from tickertape.producers.monitor.failures import MAX_NAMED, MEMORY, REPORT_INTERVAL, Failures


@dataclass(frozen=True)
class Gateway:
    """Gateway with what a report needs."""

    id: str
    type: str = "ctp"


class Setup:
    """Failures with a clock that the test advances."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reports: list[str] = []
        self.failures = Failures(self.reports.append, lambda: self.now)

    def fail(self, gateway: Gateway, probe: str = "tcp h:1") -> None:
        """Fail in a probe of a gateway."""
        with self.failures.isolate(gateway, "probe", probe):
            raise TypeError("broken\nprobe")

    def succeed(self, gateway: Gateway, probe: str = "tcp h:1") -> None:
        """Run a probe of a gateway that works."""
        with self.failures.isolate(gateway, "probe", probe):
            pass


def test_a_failure_is_named_until_the_same_probe_succeeds() -> None:
    """Another probe of the gateway that works says nothing about the failing one."""
    setup, gateway = Setup(), Gateway("main")
    setup.fail(gateway)
    setup.succeed(gateway, "tcp h:2")
    assert "probe tcp h:1: TypeError: broken" in setup.failures.current()["ctp/main"]
    setup.succeed(gateway)
    assert setup.failures.current() == {}
    assert setup.failures.counts["ctp", "main", "probe"] == 1


def test_a_repeated_failure_is_reported_once_in_a_while() -> None:
    """A probe that fails each second fills no log."""
    setup, gateway = Setup(), Gateway("main")
    for _ in range(10):
        setup.fail(gateway)
    assert len(setup.reports) == 1
    setup.now = REPORT_INTERVAL
    setup.fail(gateway)
    assert len(setup.reports) == 2
    assert "ctp/main: unexpected error in probe tcp h:1: TypeError" in setup.reports[1]
    assert "(test_failures.py:" in setup.reports[1]
    assert "11 failures, other gateways are not affected" in setup.reports[1]


def test_a_failure_of_something_that_does_not_run_again_is_forgotten() -> None:
    """The failure of a silence, for example, does not keep the monitor DEGRADED for good."""
    setup = Setup()
    setup.fail(Gateway("main"))
    setup.now = MEMORY + 1
    assert setup.failures.current() == {}


def test_what_is_kept_is_bounded_and_ends_with_the_gateway() -> None:
    """A health event names a few gateways; a removed one leaves nothing."""
    setup = Setup()
    gateways = [Gateway(f"g{number}") for number in range(3 * MAX_NAMED)]
    for gateway in gateways:
        setup.fail(gateway)
    assert len(setup.failures.current()) == MAX_NAMED
    for gateway in gateways:
        setup.failures.forget(gateway)
    assert setup.failures.current() == {}
    assert len(setup.failures.counts) == len(gateways)
    for gateway in gateways:
        setup.failures.forget(gateway, removed=True)
    assert setup.failures.counts == {}


def test_a_cancellation_passes() -> None:
    """Tasks of a gateway can still be cancelled."""
    setup = Setup()
    with pytest.raises(asyncio.CancelledError), setup.failures.isolate(Gateway("main"), "probe"):
        raise asyncio.CancelledError
    assert setup.failures.counts == {}


def test_an_event_that_cannot_be_published_belongs_to_its_gateway() -> None:
    """The subject of an event has the escaped type and id."""
    setup = Setup()
    setup.failures.record("gateway.status.ctp.main=2E1", TypeError("broken"))
    setup.failures.record("gateway.recovery.ctp.main=2E1", TypeError("broken"))
    assert set(setup.failures.counts) == {("ctp", "main.1", "status"), ("ctp", "main.1", "recovery")}
