"""Refused clients in the log: the first few each, the rest as a number, whatever comes."""

import logging

import pytest
from tickertape.relay.core.connection_limits import Limit
from tickertape.relay.transport.rejection_log import LINES, WINDOW, RejectionLog


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged."""
    assert all(record.levelno == logging.WARNING for record in caplog.records)
    return [record.getMessage() for record in caplog.records]


def test_a_refusal_is_told_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    """And with the session, where there was one."""
    refusals = RejectionLog()
    refusals.record(4401, "the token ended", "192.0.2.7")
    refusals.record(4429, "too many frames", "192.0.2.7", "abc")
    assert messages(caplog) == [
        "rejected client 192.0.2.7: the token ended (4401)",
        "closed session abc from 192.0.2.7: too many frames (4429)",
    ]
    assert vars(caplog.records[1]).items() >= {"session": "abc", "code": 4429}.items()


def test_a_crowd_is_a_number(caplog: pytest.LogCaptureFixture) -> None:
    """A reason of which there is much hides no other."""
    refusals = RejectionLog()
    refusals.tick(100.0, {})
    for _ in range(10_000):
        refusals.record(4401, "bad", "192.0.2.7")
    refusals.record(4403, "nothing granted", "192.0.2.8")
    assert len(messages(caplog)) == LINES + 1
    refusals.tick(100.0 + WINDOW - 1, {})
    assert len(messages(caplog)) == LINES + 1, "not before the window is over"
    refusals.tick(100.0 + WINDOW, {})
    assert messages(caplog)[-1] == f"further rejections: 4401 {10_000 - LINES}"
    refusals.record(4401, "bad", "192.0.2.7")
    assert len(messages(caplog)) == LINES + 3, "a new window tells the first again"
    refusals.tick(100.0 + 2 * WINDOW, {})
    assert len(messages(caplog)) == LINES + 3, "nothing was left out"


def test_what_the_door_kept_out_is_added_up(caplog: pytest.LogCaptureFixture) -> None:
    """By limit, for each window; what was told by itself is not told again."""
    refusals = RejectionLog()
    limits = {Limit.ADDRESS_RATE: 3, Limit.CONNECTIONS: 1, Limit.MESSAGE_RATE: 9}
    refusals.tick(100.0, limits)
    refusals.tick(100.0 + WINDOW, limits)
    refusals.tick(100.0 + 2 * WINDOW, {**limits, Limit.ADDRESS_RATE: 5})
    assert messages(caplog) == [
        "connections rejected by limits: address_rate 3, connections 1",
        "connections rejected by limits: address_rate 2",
    ]
