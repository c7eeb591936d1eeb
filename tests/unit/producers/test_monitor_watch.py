"""A gateway under watch: which events its results make."""

from contracts.events import GatewayStatusChange, Rejected, Status, decode
from producers.monitor.config import MonitorConfig
from producers.monitor.health import Outcome, Result
from producers.monitor.latest import Newest
from producers.monitor.watch import Watch, removed
from producers.monitor.watched import spread

OK = Result(Outcome.OK, None, 0.002)
FAILED = Result(Outcome.FAILED, "connection refused")
SLOW = Result(Outcome.DEGRADED, "answered in 700 ms", 0.7)


def watch(newest: Newest | None = None, probes: int = 1) -> Watch:
    config = MonitorConfig.model_validate(
        {
            "defaults": {"unhealthy_after": 2, "healthy_after": 2},
            "gateways": [
                {
                    "id": "main",
                    "type": "ctp",
                    "group": "futures",
                    "labels": {"site": "sh"},
                    "probes": [{"kind": "tcp", "address": f"h:{port}"} for port in range(1, probes + 1)],
                }
            ],
        }
    )
    return Watch(config.resolved()[0], "m1", newest, 0.0)


def newest(status: Status, probes: dict[str, str] | None = None) -> Newest:
    return Newest("ctp", "main", status, "2025-01-01T00:00:00Z", "m1", probes or {})


def path(event: GatewayStatusChange | None) -> str:
    return f"{event.previous_status}>{event.current_status}" if event else "-"


def test_a_gateway_that_nobody_knows_is_told_as_unknown() -> None:
    """The page shows a new gateway before its first verdict."""
    assert path(watch().first(0.0)) == "UNKNOWN>UNKNOWN"


def test_a_gateway_that_is_known_is_not_told_again() -> None:
    """After a restart nothing is told until something changes."""
    one = watch(newest(Status.HEALTHY))
    assert one.first(0.0) is None
    assert path(one.after(0, FAILED, 1.0)) == "-"
    assert path(one.after(0, FAILED, 2.0)) == "HEALTHY>UNHEALTHY"


def test_a_gateway_that_comes_back_to_the_file_is_told() -> None:
    """REMOVED is followed by UNKNOWN."""
    assert path(watch(newest(Status.REMOVED)).first(0.0)) == "REMOVED>UNKNOWN"


def test_changes_follow_on_one_another() -> None:
    """Each event begins with the status that the one before ended with."""
    one = watch()
    results = [OK, OK, FAILED, FAILED, OK, OK, SLOW, SLOW]
    told = [path(one.after(0, result, float(at))) for at, result in enumerate(results)]
    assert [change for change in told if change != "-"] == [
        "UNKNOWN>HEALTHY",
        "HEALTHY>UNHEALTHY",
        "UNHEALTHY>RECOVERING",
        "RECOVERING>HEALTHY",
        "HEALTHY>DEGRADED",
    ]


def test_an_event_says_why_and_keeps_the_contract() -> None:
    """The failing probe, its error, the group and the labels stand in the event."""
    one = watch(newest(Status.HEALTHY), probes=2)
    one.after(1, FAILED, 10.0)
    one.after(0, OK, 10.5)
    event = one.after(1, FAILED, 11.0)
    assert event is not None
    assert event.metadata == {
        "monitor": "m1",
        "since": "1970-01-01T00:00:11.000Z",
        "probes": {"tcp h:1": "HEALTHY", "tcp h:2": "UNHEALTHY"},
        "labels": {"site": "sh"},
        "group": "futures",
        "probe": "tcp h:2",
        "error": "connection refused",
        "latency_ms": 2.0,
    }
    assert not isinstance(decode(event.subject, event.encode()), Rejected)


def test_a_restart_goes_on_with_each_probe() -> None:
    """When the failing probe answers again, the gateway recovers, though the other was never asked."""
    one = watch(newest(Status.UNHEALTHY, {"tcp h:1": "HEALTHY", "tcp h:2": "UNHEALTHY"}), probes=2)
    assert path(one.after(0, OK, 1.0)) == "-"
    assert path(one.after(1, OK, 2.0)) == "UNHEALTHY>RECOVERING"
    assert path(one.after(1, OK, 3.0)) == "RECOVERING>HEALTHY"


def test_a_removed_gateway_leaves_with_its_last_status() -> None:
    """The event goes to the gateway's own subject."""
    event = removed(newest(Status.UNHEALTHY), "m1", 5.0)
    assert path(event) == "UNHEALTHY>REMOVED"
    assert event.subject == "gateway.status.ctp.main"


def test_first_probes_are_spread_over_the_interval() -> None:
    """A thousand gateways are not asked in the same moment, and each has the same moment at every start."""
    moments = [spread(f"gateway {number}", 5.0) for number in range(1000)]
    assert all(0 <= moment < 5 for moment in moments)
    fifths = [sum(1 for moment in moments if int(moment) == fifth) for fifth in range(5)]
    assert min(fifths) > 150
    assert spread("gateway 7", 5.0) == moments[7]
