"""What probes remember: log-ins of the last hour, and what arrived when."""

from tickertape.producers.monitor.probes.context import Freshness
from tickertape.producers.monitor.probes.fix import LogonLimits


def test_log_ins_are_capped_over_a_sliding_hour() -> None:
    """Each account has its own."""
    caps = LogonLimits()
    assert [caps.allow(("a", "x"), 2, now) for now in (0.0, 10.0, 20.0, 3_599.0)] == [
        True,
        True,
        False,
        False,
    ]
    assert caps.allow(("b", "x"), 2, 20.0)
    assert [caps.allow(("a", "x"), 2, now) for now in (3_600.0, 3_601.0, 3_610.0)] == [True, False, True]


def test_what_never_arrived_ages_from_when_it_was_listened_to() -> None:
    """And what did arrive, from then."""
    board = Freshness()
    assert board.age("md.>", 0.0) is None
    board.listen({"md.>"}, 10.0)
    assert board.age("md.>", 13.0) == (3.0, False)
    board.record_message("md.shfe", 14.0)
    board.record_message("td.shfe", 15.0)
    assert board.age("md.>", 16.0) == (2.0, True)


def test_a_time_without_nats_proves_nothing() -> None:
    """What could not be heard is not stale; it has its time again once NATS is back."""
    board = Freshness()
    board.listen({"md.>"}, 0.0)
    board.record_message("md.shfe", 1.0)
    board.suspend()
    assert board.is_suspended
    assert board.age("md.>", 50.0) is None
    board.listen({"md.>"}, 60.0)
    assert not board.is_suspended
    assert board.age("md.>", 61.0) == (1.0, True)
