"""The log of rejected clients: the first few of each reason in full, the rest as a count."""

import logging

import pytest
from tickertape.relay.core.connection_limits import Limit
from tickertape.relay.transport.rejection_log import LINES, WINDOW, RejectionLog


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged messages and check that all are warnings."""
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_a_rejection_is_logged_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """A rejection is logged with its reason, and with the session if there was one."""
    rejections = RejectionLog()
    rejections.record(4401, "the token ended", "192.0.2.7")
    rejections.record(4429, "too many frames", "192.0.2.7", "abc")
    assert messages(caplog) == [
        "rejected client 192.0.2.7: the token ended (4401)",
        "closed session abc from 192.0.2.7: too many frames (4429)",
    ]
    assert vars(caplog.records[1]).items() >= {"session": "abc", "code": 4429}.items()


def test_frequent_rejections_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    """A frequent reason is logged as a count, so it does not hide other reasons."""
    rejections = RejectionLog()
    rejections.tick(100.0, {})
    for _ in range(10_000):
        rejections.record(4401, "bad", "192.0.2.7")
    rejections.record(4403, "nothing granted", "192.0.2.8")
    assert len(messages(caplog)) == LINES + 1
    rejections.tick(100.0 + WINDOW - 1, {})
    assert len(messages(caplog)) == LINES + 1, "not before the window is over"
    rejections.tick(100.0 + WINDOW, {})
    assert messages(caplog)[-1] == f"further rejections: 4401 {10_000 - LINES}"
    rejections.record(4401, "bad", "192.0.2.7")
    assert len(messages(caplog)) == LINES + 3, "a new window logs the first rejections again"
    rejections.tick(100.0 + 2 * WINDOW, {})
    assert len(messages(caplog)) == LINES + 3, "no rejection was omitted"


def test_rejections_by_limits_are_summed_per_window(caplog: pytest.LogCaptureFixture) -> None:
    """Rejections by limits are summed per window, except for those that are logged one by one."""
    rejections = RejectionLog()
    limits = {Limit.ADDRESS_RATE: 3, Limit.CONNECTIONS: 1, Limit.MESSAGE_RATE: 9}
    rejections.tick(100.0, limits)
    rejections.tick(100.0 + WINDOW, limits)
    rejections.tick(100.0 + 2 * WINDOW, {**limits, Limit.ADDRESS_RATE: 5})
    assert messages(caplog) == [
        "connections rejected by limits: address_rate 3, connections 1",
        "connections rejected by limits: address_rate 2",
    ]
