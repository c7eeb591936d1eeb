"""Parsing of the stored status of a gateway, which any producer may have published."""

import pytest
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.coordination.stored_status import parse_stored_status


@pytest.mark.parametrize(
    ("since", "kept"),
    [
        ("2025-06-24T10:30:45Z", True),
        ("0001-01-01T00:00:00+23:59", True),
        ("9999-12-31T23:59:59-23:59", True),
        ("yesterday", False),
        ("", False),
        ("0000-01-01T00:00:00Z", False),
        ("9999-12-31T24:00:00Z", False),
        (17, False),
        (None, False),
    ],
)
def test_an_invalid_since_is_replaced_by_the_event_time(since: object, *, kept: bool) -> None:
    """A ``since`` that is not a valid time is replaced by the time of the event, because a monitor compares
    it with its clock at each change.
    """
    event = GatewayStatusChange(
        gateway_id="a",
        gateway_type="ctp",
        previous_status=Status.UNKNOWN,
        current_status=Status.HEALTHY,
        metadata={"since": since},
    )
    found = parse_stored_status(event.subject, event.encode(), 1)
    assert found is not None
    assert found.since == (since if kept else event.timestamp)
