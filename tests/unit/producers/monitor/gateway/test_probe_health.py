"""The state table of a probe, and the status of a gateway that results from its probes."""

import pytest
from tickertape.contracts.events import Status
from tickertape.producers.monitor.gateway.probe_health import (
    Outcome,
    ProbeHealth,
    combine_statuses,
    restore_health,
)

OUTCOMES = {"+": Outcome.OK, "~": Outcome.DEGRADED, "-": Outcome.FAILED, "?": Outcome.UNKNOWN}
LETTERS = {
    Status.UNKNOWN: "?",
    Status.HEALTHY: "H",
    Status.DEGRADED: "D",
    Status.UNHEALTHY: "U",
    Status.RECOVERING: "R",
}


def walk(results: str, *, start: Status = Status.UNKNOWN, down: int = 3, up: int = 2) -> str:
    """Return the states after each result, one letter each."""
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
        (Status.UNKNOWN, "???+?+", "?????H"),
        (Status.HEALTHY, "??-?-?-", "HHHHHHU"),
        (Status.UNHEALTHY, "????+?+", "UUUURRH"),
    ],
)
def test_the_state_table(start: Status, results: str, states: str) -> None:
    """A series of results leads to the states of the table."""
    assert walk(results, start=start) == states


def test_thresholds_of_one_decide_immediately() -> None:
    """With thresholds of 1 every result decides, and RECOVERING is skipped."""
    assert walk("+-+-~", down=1, up=1) == "HUHUD"


@pytest.mark.parametrize("status", [Status.HEALTHY, Status.DEGRADED, Status.UNHEALTHY])
@pytest.mark.parametrize("result", ["+", "~", "-"])
def test_the_first_result_after_a_restart_flips_nothing(status: Status, result: str) -> None:
    """The first result after a restart does not move a probe from up to down, or from down to up."""
    health = restore_health(status, {}, "tcp a:1").with_result(OUTCOMES[result], 3, 2)
    up = {Status.HEALTHY, Status.DEGRADED}
    assert (health.status in up) == (status in up)


def test_each_probe_is_restored_with_its_own_status() -> None:
    """After a restart each probe has its own last state, and a new probe is UNKNOWN."""
    stored = {"tcp a:1": "UNHEALTHY", "http b": "HEALTHY"}
    assert restore_health(Status.UNHEALTHY, stored, "tcp a:1").status is Status.UNHEALTHY
    assert restore_health(Status.UNHEALTHY, stored, "http b").status is Status.HEALTHY
    assert restore_health(Status.UNHEALTHY, stored, "http new").status is Status.UNKNOWN


@pytest.mark.parametrize("status", [Status.OFF_SESSION, Status.REMOVED, Status.UNKNOWN])
def test_a_status_not_from_probes_restores_as_unknown(status: Status) -> None:
    """A stored status that is not a result of probes restores a probe as UNKNOWN."""
    assert restore_health(status, {}, "tcp a:1").status is Status.UNKNOWN


def test_a_gateway_has_the_status_of_its_worst_probe() -> None:
    """A gateway has the status of its worst probe."""
    assert combine_statuses(Status.HEALTHY, [Status.HEALTHY, Status.UNHEALTHY]) is Status.UNHEALTHY
    assert combine_statuses(Status.HEALTHY, [Status.HEALTHY, Status.DEGRADED]) is Status.DEGRADED
    assert combine_statuses(Status.UNHEALTHY, [Status.RECOVERING, Status.HEALTHY]) is Status.RECOVERING


def test_a_gateway_is_unknown_until_all_probes_have_a_status() -> None:
    """A gateway is UNKNOWN until all probes have a status; a probe that is added later does not reset it."""
    assert combine_statuses(Status.UNKNOWN, [Status.HEALTHY, Status.UNKNOWN]) is Status.UNKNOWN
    assert combine_statuses(Status.HEALTHY, [Status.HEALTHY, Status.UNKNOWN]) is Status.HEALTHY
    assert combine_statuses(Status.DEGRADED, [Status.UNKNOWN]) is Status.DEGRADED
