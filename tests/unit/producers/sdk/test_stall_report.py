"""Reports of a NATS server that is connected and stores nothing, with literal times."""

import pytest
from tickertape.producers.sdk.stall_report import STALL_AFTER, StallReport


def cause(event: str) -> tuple[str, str]:
    """Return message and hint for an event."""
    return f"{event} is not stored", "free space"


def test_a_stall_and_its_end_are_reported_once() -> None:
    """Neither the sweeps during a stall nor later acknowledgements repeat a line."""
    lines: list[str] = []
    stalls = StallReport("orders", lines.append)
    for tick in range(1000):
        stalls.check(10.0 + tick * 0.05, "log.info.a", cause)
    assert stalls.stalled
    assert lines == ["log.info.a is not stored; free space; retrying"]
    for tick in range(10):
        stalls.record_ack(70.0 + tick)
    assert not stalls.stalled
    assert lines[1:] == ["NATS stores events again"]
    stalls.check(79.0 + STALL_AFTER, "log.info.b", cause)
    assert len(lines) == 3


@pytest.mark.parametrize("interruption", ["acknowledged", "idle", "offline"])
def test_progress_an_idle_publisher_and_an_outage_are_no_stall(interruption: str) -> None:
    """The time without an acknowledgement starts again after each of them."""
    lines: list[str] = []
    stalls = StallReport("orders", lines.append)
    stalls.check(0.0, "a", cause)
    if interruption == "acknowledged":
        stalls.record_ack(STALL_AFTER - 1.0)
    elif interruption == "idle":
        stalls.check(STALL_AFTER - 1.0, None, cause)
    else:
        stalls.restart()
    stalls.check(STALL_AFTER + 1.0, "a", cause)
    assert not lines


def test_without_a_callback_stalls_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The log names the publisher."""
    stalls = StallReport("orders", None)
    stalls.check(0.0, "a", cause)
    stalls.check(STALL_AFTER, "a", cause)
    assert [record.getMessage() for record in caplog.records] == [
        "orders: a is not stored; free space; retrying"
    ]
