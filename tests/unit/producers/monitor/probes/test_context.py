"""State that probes keep between runs: log-ins of the last hour, and times of messages."""

import asyncio
import time

import pytest
from tickertape.producers.monitor.probes import CannotProbe
from tickertape.producers.monitor.probes.context import Freshness, HourlyLimits, ProbeContext
from tickertape.producers.monitor.probes.freshness import FreshnessProbe

from tests.support.virtual_loop import VirtualLoop
from tickertape.errors import OperatorError


def test_log_ins_are_limited_within_a_sliding_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NATS, the log-ins of each account are limited within a sliding hour."""
    limits = HourlyLimits()

    def take(account: str, now: float) -> bool | None:
        monkeypatch.setattr(time, "monotonic", lambda: now)
        return asyncio.run(limits.take("logon", (account, "x"), 2))

    assert [take("a", now) for now in (0.0, 10.0, 20.0, 3_599.0)] == [True, True, False, False]
    assert take("b", 20.0)
    assert [take("a", now) for now in (3_600.0, 3_601.0, 3_610.0)] == [True, False, True]


def test_a_message_has_an_age_and_ends_the_subscription() -> None:
    """Between a message and the next subscription, nothing is known about the subject."""
    freshness = Freshness()
    freshness.connect(0.0)
    assert (freshness.age("md.>", 5.0), freshness.silence("md.>", 5.0)) == (None, None)
    freshness.listen("md.>", 10.0)
    assert (freshness.age("md.>", 13.0), freshness.silence("md.>", 13.0)) == (None, 3.0)
    freshness.record_message("md.>", 14.0)
    assert (freshness.age("md.>", 16.0), freshness.silence("md.>", 16.0)) == (2.0, None)
    freshness.listen("md.>", 17.0)
    assert (freshness.age("md.>", 20.0), freshness.silence("md.>", 20.0)) == (6.0, 3.0)
    freshness.forget("md.>")
    freshness.record_message("md.>", 21.0)  # on its way when the pattern was removed
    assert (freshness.age("md.>", 22.0), freshness.silence("md.>", 22.0)) == (None, None)


def test_silence_does_not_count_while_nats_is_unreachable() -> None:
    """After an outage, silence counts from the reconnection, and the age from the last message as before."""
    freshness = Freshness()
    freshness.connect(0.0)
    freshness.listen("md.>", 0.0)
    freshness.disconnect()
    assert freshness.silence("md.>", 50.0) is None
    freshness.connect(60.0)
    freshness.connect(61.0)
    assert freshness.silence("md.>", 62.0) == 2.0
    freshness.record_message("md.>", 63.0)
    freshness.disconnect()
    assert freshness.age("md.>", 70.0) == 7.0


def test_after_an_outage_that_was_longer_the_last_result_is_out_of_date() -> None:
    """A message may have been missed, unless one has arrived since, or no session was open for as long."""
    context = ProbeContext()
    freshness = context.freshness
    probe = FreshnessProbe(kind="freshness", subject="md.>", within="5s")

    def judge(active_since: float = float("-inf")) -> str:
        async def main() -> str:
            try:
                result = await probe.probe(1.0, context.within_session(active_since))
            except CannotProbe as error:
                return error.message
            return "None" if result is None else str(result.outcome)

        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            return runner.run(main())

    # Now is 0.
    missed = "messages may have been missed while NATS was unreachable"
    freshness.connect(-100.0)
    freshness.listen("md.>", -100.0)
    freshness.record_message("md.>", -4.0)
    freshness.disconnect()
    assert judge() == "ok"
    freshness.record_message("md.>", -6.0)
    assert judge() == missed
    freshness.connect(-1.0)
    freshness.listen("md.>", -1.0)
    assert (judge(), judge(active_since=-3.0)) == (missed, "None")
    freshness.record_message("md.>", -0.5)
    assert judge() == "ok"


def test_after_a_suspension_no_message_is_known() -> None:
    """The clock of messages and of their absence starts again, where a subject is listened to."""
    freshness = Freshness()
    freshness.connect(0.0)
    freshness.listen("a", 0.0)
    freshness.listen("b", 0.0)
    freshness.record_message("b", 1.0)
    freshness.start_over(10.0)
    assert [freshness.age(name, 12.0) for name in "ab"] == [None, None]
    assert [freshness.silence(name, 12.0) for name in "ab"] == [2.0, None]
    freshness.disconnect()
    freshness.start_over(20.0)
    assert freshness.silence("a", 22.0) is None


def test_silence_does_not_count_while_nats_denies_the_subject() -> None:
    """It counts again from when the subscription is granted, also that of a subject with a message."""
    freshness = Freshness()
    freshness.connect(0.0)
    for pattern in ("a.>", "b.>", "c.>"):
        freshness.listen(pattern, 0.0)
    freshness.record_message("c.>", 1.0)
    denied = OperatorError("denied", "grant it")
    freshness.set_denied({"a.>": denied, "c.>": denied}, 1.0)
    assert freshness.silence("a.>", 100.0) is None
    assert freshness.silence("b.>", 100.0) == 100.0
    freshness.set_denied({}, 100.0)
    assert freshness.silence("a.>", 101.0) == 1.0
    assert freshness.silence("c.>", 101.0) is None
