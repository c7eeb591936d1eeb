"""Reports of dropped events, and pacing after 'too many requests', with literal times."""

import pytest
from tickertape.producers.sdk.ack_window import SendPacer
from tickertape.producers.sdk.drop_report import DropReport


def test_drops_are_logged_once_per_second_and_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """The log gets at most one line per second about dropped events, and the stream one event at the end."""
    drops = DropReport("orders")
    for number in range(1000):
        drops.add(1, 10.0 + number / 1000, offline=True)
    assert not drops.is_due(11.5)
    drops.log_if_due(11.2)
    drops.log_if_due(11.3)
    assert [record.getMessage() for record in caplog.records] == [
        "orders: 1 event was dropped while NATS was unreachable",
        "orders: 999 events were dropped while NATS was unreachable",
    ]
    assert {(record.name, record.levelname) for record in caplog.records} == {("tickertape", "WARNING")}
    assert drops.is_due(12.1)
    event, number = drops.take()
    assert number == drops.count == 1000
    assert (event.level, event.source, event.metadata) == ("WARN", "orders", {"dropped": 1000})
    assert event.message == "1000 events were dropped while NATS was unreachable"
    assert not drops.is_due(20.0)
    drops.restore(number)
    assert drops.is_due(20.0)


def test_the_reason_of_drops_is_reported() -> None:
    """Events that are dropped while NATS is reachable are reported as too fast for the stream."""
    drops = DropReport("")
    drops.add(2, 0.0, offline=False)
    event, _ = drops.take()
    assert event.message == "2 events were dropped because the stream could not keep up"
    assert event.source == "publisher"


def test_too_many_requests_back_off() -> None:
    """Several 'too many requests' during a pause count once; pauses double, and bursts halve, up to a
    limit.
    """
    pacer = SendPacer()
    assert pacer.allowance(0.0) is None
    waits, bursts = [], []
    now = 100.0
    for _ in range(9):
        pacer.slow_down(now)
        pacer.slow_down(now + 0.01)
        assert pacer.allowance(now + 0.02) == 0
        waits.append(pacer.paused_until - now)
        now = pacer.paused_until
        bursts.append(pacer.allowance(now))
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert bursts == [1024, 512, 256, 128, 64, 32, 16, 16, 16]
    assert repr(pacer).startswith("<SendPacer until ")


def test_pacing_recovers_with_each_accepted_burst() -> None:
    """With each accepted burst, bursts grow by a quarter and pauses shrink, until sending is unlimited."""
    pacer = SendPacer()
    for now in (0.0, 10.0, 20.0):
        pacer.slow_down(now)
    found = [pacer.allowance(30.0 + number) for number in range(12)]
    assert found == [256, 320, 400, 500, 625, 781, 976, 1220, 1525, 1906, None, None]
    pacer.slow_down(50.0)
    assert pacer.paused_until == 50.25
