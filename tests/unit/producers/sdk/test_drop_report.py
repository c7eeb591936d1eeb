"""Counting and telling drops, and the pace under 'too many requests', with literal times."""

import pytest
from tickertape.producers.sdk.ack_window import SendPacer
from tickertape.producers.sdk.drop_report import DropReport


def test_a_line_a_second_and_one_report(caplog: pytest.LogCaptureFixture) -> None:
    """However many are dropped, the log has one line a second, and the stream one event at the end."""
    drops = DropReport("orders")
    for number in range(1000):
        drops.add(1, 10.0 + number / 1000, away=True)
    assert not drops.due(11.5)
    drops.say(11.2)
    drops.say(11.3)
    assert [record.getMessage() for record in caplog.records] == [
        "orders: 1 event was dropped while NATS was away",
        "orders: 999 events were dropped while NATS was away",
    ]
    assert {(record.name, record.levelname) for record in caplog.records} == {("tickertape", "WARNING")}
    assert drops.due(12.1)
    event, number = drops.report()
    assert number == drops.count == 1000
    assert (event.level, event.source, event.metadata) == ("WARN", "orders", {"dropped": 1000})
    assert event.message == "1000 events were dropped while NATS was away"
    assert not drops.due(20.0)
    drops.again(number)
    assert drops.due(20.0)


def test_the_reason_is_told() -> None:
    """While NATS is there, the producer was too fast."""
    drops = DropReport("")
    drops.add(2, 0.0, away=False)
    event, _ = drops.report()
    assert event.message == "2 events were dropped since they came faster than the stream took them"
    assert event.source == "publisher"


def test_too_many_requests_wait_longer_each_time() -> None:
    """Refusals that arrive together are one; the waits double up to two seconds, and the bursts halve."""
    pace = SendPacer()
    assert pace.allowance(0.0) is None
    waits, bursts = [], []
    now = 100.0
    for _ in range(9):
        pace.busy(now)
        pace.busy(now + 0.01)
        assert pace.allowance(now + 0.02) == 0
        waits.append(pace.until - now)
        now = pace.until
        bursts.append(pace.allowance(now))
    assert waits == pytest.approx([0.25, 0.5, 1.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0])
    assert bursts == [1024, 512, 256, 128, 64, 32, 16, 16, 16]
    assert repr(pace).startswith("<SendPacer until ")


def test_a_link_recovers_with_each_burst_that_is_taken() -> None:
    """Bursts grow by a quarter, waits shrink, and in the end nothing bounds the link."""
    pace = SendPacer()
    for now in (0.0, 10.0, 20.0):
        pace.busy(now)
    found = [pace.allowance(30.0 + number) for number in range(12)]
    assert found == [256, 320, 400, 500, 625, 781, 976, 1220, 1525, 1906, None, None]
    pace.busy(50.0)
    assert pace.until == 50.25
