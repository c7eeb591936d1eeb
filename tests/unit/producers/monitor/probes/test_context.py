"""State that probes keep between runs: log-ins of the last hour, and times of messages."""

from tickertape.producers.monitor.probes.context import Freshness
from tickertape.producers.monitor.probes.fix import LogonLimits


def test_log_ins_are_limited_within_a_sliding_hour() -> None:
    """The log-ins of each account are limited within a sliding hour."""
    limits = LogonLimits()
    assert [limits.allow(("a", "x"), 2, now) for now in (0.0, 10.0, 20.0, 3_599.0)] == [
        True,
        True,
        False,
        False,
    ]
    assert limits.allow(("b", "x"), 2, 20.0)
    assert [limits.allow(("a", "x"), 2, now) for now in (3_600.0, 3_601.0, 3_610.0)] == [True, False, True]


def test_the_age_of_a_subject() -> None:
    """Without a message, the age counts from the subscription; otherwise from the latest message."""
    freshness = Freshness()
    assert freshness.age("md.>", 0.0) is None
    freshness.listen({"md.>"}, 10.0)
    assert freshness.age("md.>", 13.0) == (3.0, False)
    freshness.record_message("md.shfe", 14.0)
    freshness.record_message("td.shfe", 15.0)
    assert freshness.age("md.>", 16.0) == (2.0, True)


def test_a_nats_outage_suspends_ages() -> None:
    """A subject has no age while NATS is unreachable; afterwards its age counts from the reconnection."""
    freshness = Freshness()
    freshness.listen({"md.>"}, 0.0)
    freshness.record_message("md.shfe", 1.0)
    freshness.suspend()
    assert freshness.is_suspended
    assert freshness.age("md.>", 50.0) is None
    freshness.listen({"md.>"}, 60.0)
    assert not freshness.is_suspended
    assert freshness.age("md.>", 61.0) == (1.0, True)
