"""The table of a probe's states, and how a gateway follows from its probes."""

import pytest
from tickertape.contracts.events import Status
from tickertape.producers.monitor.gateway.probe_health import (
    Outcome,
    ProbeHealth,
    combine_statuses,
    restore_health,
)

OUTCOMES = {"+": Outcome.OK, "~": Outcome.DEGRADED, "-": Outcome.FAILED}
LETTERS = {
    Status.UNKNOWN: "?",
    Status.HEALTHY: "H",
    Status.DEGRADED: "D",
    Status.UNHEALTHY: "U",
    Status.RECOVERING: "R",
}


def walk(results: str, *, start: Status = Status.UNKNOWN, down: int = 3, up: int = 2) -> str:
    """States after each result, one letter each."""
    health = ProbeHealth(start)
    states = ""
    for result in results:
        health = health.with_result(OUTCOMES[result], down, up)
        states += LETTERS[health.status]
    return states


@pytest.mark.parametrize(
    ("start", "results", "states"),
    [
        (Status.UNKNOWN, "++", "?H"),
        (Status.UNKNOWN, "---", "??U"),
        (Status.UNKNOWN, "+-+-+-", "??????"),
        (Status.UNKNOWN, "~~", "?D"),
        (Status.HEALTHY, "--+--+", "HHHHHH"),
        (Status.HEALTHY, "---", "HHU"),
        (Status.HEALTHY, "~~~", "HHD"),
        (Status.HEALTHY, "-~-", "HHD"),
        (Status.HEALTHY, "~~+~~", "HHHHH"),
        (Status.DEGRADED, "++", "DH"),
        (Status.DEGRADED, "+~++", "DDDH"),
        (Status.DEGRADED, "---", "DDU"),
        (Status.UNHEALTHY, "-", "U"),
        (Status.UNHEALTHY, "++", "RH"),
        (Status.UNHEALTHY, "+-++", "RURH"),
        (Status.UNHEALTHY, "+~", "RD"),
        (Status.UNHEALTHY, "~~", "RD"),
        (Status.RECOVERING, "-", "U"),
    ],
)
def test_the_table(start: Status, results: str, states: str) -> None:
    """A series of results leads to the states of the table."""
    assert walk(results, start=start) == states


def test_thresholds_of_one_decide_at_once() -> None:
    """With thresholds of 1 there is no RECOVERING, and every result counts."""
    assert walk("+-+-~", down=1, up=1) == "HUHUD"


@pytest.mark.parametrize("status", [Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY])
@pytest.mark.parametrize("result", ["+", "~", "-"])
def test_the_first_result_after_a_restart_flips_nothing(status: Status, result: str) -> None:
    """A probe that goes on from what LATEST says stays up or stays down at its first result."""
    health = restore_health(status, {}, "tcp a:1").with_result(OUTCOMES[result], 3, 2)
    up = {Status.HEALTHY, Status.DEGRADED}
    assert (health.status in up) == (status in up)


def test_each_probe_goes_on_from_its_own_state() -> None:
    """Of two probes only the one that had failed comes back as failed."""
    told = {"tcp a:1": "UNHEALTHY", "http b": "HEALTHY"}
    assert restore_health(Status.UNHEALTHY, told, "tcp a:1").status is Status.UNHEALTHY
    assert restore_health(Status.UNHEALTHY, told, "http b").status is Status.HEALTHY
    assert restore_health(Status.UNHEALTHY, told, "http new").status is Status.UNKNOWN


@pytest.mark.parametrize("status", [Status.OFF_SESSION, Status.REMOVED, Status.UNKNOWN])
def test_a_status_that_no_probe_has_is_unknown(status: Status) -> None:
    """What is no verdict of a probe is not taken for one."""
    assert restore_health(status, {}, "tcp a:1").status is Status.UNKNOWN


def test_a_gateway_is_as_its_worst_probe() -> None:
    """One failing probe is enough."""
    assert combine_statuses(Status.HEALTHY, [Status.HEALTHY, Status.UNHEALTHY]) is Status.UNHEALTHY
    assert combine_statuses(Status.HEALTHY, [Status.HEALTHY, Status.DEGRADED]) is Status.DEGRADED
    assert combine_statuses(Status.UNHEALTHY, [Status.RECOVERING, Status.HEALTHY]) is Status.RECOVERING


def test_a_gateway_is_unknown_until_all_probes_have_a_verdict() -> None:
    """At first every probe must have shown something, later a new probe takes nothing back."""
    assert combine_statuses(Status.UNKNOWN, [Status.HEALTHY, Status.UNKNOWN]) is Status.UNKNOWN
    assert combine_statuses(Status.HEALTHY, [Status.HEALTHY, Status.UNKNOWN]) is Status.HEALTHY
    assert combine_statuses(Status.DEGRADED, [Status.UNKNOWN]) is Status.DEGRADED
