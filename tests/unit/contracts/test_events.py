"""Event models of producers, and parsing and formatting of timestamps."""

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tickertape.contracts import events
from tickertape.contracts.decode import decode
from tickertape.contracts.events import (
    Event,
    EventModel,
    GatewayRecovery,
    GatewayStatusChange,
    Rejection,
    RejectionReason,
    Status,
    SystemHealth,
    SystemLog,
)

TIME = "2025-06-24T10:30:45.123Z"
LOG: dict[str, Any] = {
    "event_type": "system_log",
    "timestamp": TIME,
    "level": "INFO",
    "message": "m",
    "source": "a",
}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2025-06-24T10:30:45.123Z", 1750761045.123),
        ("2025-06-24t10:30:45z", 1750761045.0),
        ("2025-06-24T18:30:45+08:00", 1750761045.0),
        ("2025-06-24T10:30:45-00:00", 1750761045.0),
        ("2025-06-24T10:30:45.123456789Z", 1750761045.123456),
        ("2024-02-29T00:00:00Z", 1709164800.0),
        ("1969-12-31T23:59:59Z", -1.0),
    ],
)
def test_times_are_parsed(text: str, seconds: float) -> None:
    """All forms of an RFC 3339 timestamp parse to the same UNIX time."""
    assert events.parse_time(text).timestamp() == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "2025-06-24", "2025-06-24T10:30:45", "2025-06-24 10:30:45Z", "2025-06-24T10:30Z",
     "2025-06-24T10:30:45.Z", "2025-02-30T00:00:00Z", "2025-06-24T24:00:00Z", "2025-06-24T10:30:60Z",
     "2025-06-24T10:30:45+0800", "2025-06-24T10:30:45+24:00",
     "0000-01-01T00:00:00Z", "20250624T103045Z", "2025-W26-2T10:30:45Z",
     "2025-06-24T10:30:45Z\n", " 2025-06-24T10:30:45Z", "２０２５-06-24T10:30:45Z", "2025-06-24T10:30:45,5Z"],
)  # fmt: skip
def test_invalid_times_are_rejected(text: str) -> None:
    """Texts that are not RFC 3339, or no valid date, are rejected for readers and producers."""
    with pytest.raises(ValueError):  # noqa: PT011 - the calendar's errors are Python's own
        events.parse_time(text)
    found = decode("log.info.a", orjson.dumps({**LOG, "timestamp": text}))
    assert isinstance(found, Rejection)
    assert found.reason is RejectionReason.BAD_TIMESTAMP
    with pytest.raises(ValidationError):
        SystemLog(level="INFO", message="", source="a", timestamp=text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_formatted_time_can_be_parsed(moment: datetime) -> None:
    """Times are formatted in UTC with milliseconds and four-digit years, and can be parsed again."""
    text = events.format_time(moment.timestamp())
    assert len(text) == 24
    assert abs(events.parse_time(text) - moment) < timedelta(milliseconds=2)


@given(st.floats(allow_nan=False))
def test_every_time_can_be_formatted(seconds: float) -> None:
    """Every number of seconds can be formatted; those outside of the calendar are clamped to its ends."""
    text = events.format_time(seconds)
    assert len(text) == 24
    within = min(max(seconds, events.MIN_TIME), events.MAX_TIME)
    assert events.parse_time(text).timestamp() == pytest.approx(within, abs=0.002)


@given(
    st.datetimes().map(datetime.isoformat),
    st.sampled_from(["Z", "+00:00", "+23:59", "-23:59"]),
    st.sampled_from(["", ".9", ".9999999999"]),
)
def test_every_parsed_time_can_be_formatted(local: str, zone: str, fraction: str) -> None:
    """Every parsed time can be formatted, even if its offset leads out of the years 1 to 9999."""
    text = f"{local[:19]}{fraction}{zone}"
    assert len(events.format_time(events.parse_time(text).timestamp())) == 24


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59.999Z"),
        ("9999-12-31T23:59:59.9999999Z", "9999-12-31T23:59:59.999Z"),
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00.000Z"),
    ],
)
def test_the_ends_of_the_calendar(text: str, written: str) -> None:
    """Times beyond the ends of the calendar in UTC are formatted as the first or last time."""
    assert events.format_time(events.parse_time(text).timestamp()) == written


def test_producers_can_pass_a_datetime() -> None:
    """A datetime with a time zone is formatted in UTC; one without is rejected."""
    moment = datetime(2025, 6, 24, 18, 30, 45, 123_000, timezone(timedelta(hours=8)))
    # Producers may pass a datetime, although the field's type does not declare it.
    given_time: Any = moment
    assert SystemLog(level="INFO", message="", source="a", timestamp=given_time).timestamp == TIME
    naive: Any = moment.replace(tzinfo=None)
    with pytest.raises(ValidationError, match="the datetime has no time zone"):
        SystemLog(level="INFO", message="", source="a", timestamp=naive)


@pytest.mark.parametrize(
    "event",
    [
        GatewayStatusChange(
            gateway_id="main.1",
            gateway_type="ctp",
            previous_status=Status.UNKNOWN,
            current_status=Status.HEALTHY,
            metadata={"a": [1]},
        ),
        GatewayRecovery(gateway_id="é", gateway_type="ctp", phase="started", attempt=0),
        SystemLog(level="WARN", message="\x1b[31m<b>", source="a/b"),
        SystemHealth(component="db", status=Status.DEGRADED, checks=[{"ok": True}]),
        SystemHealth(component="db", instance="1", status=Status.REMOVED),
    ],
)
def test_events_of_the_models_are_accepted(event: EventModel) -> None:
    """``decode`` accepts the subject and the payload of every model, including the default timestamp."""
    found = decode(event.subject, event.encode())
    assert isinstance(found, Event), found
    assert found.payload == event.encode()
    assert found.state == isinstance(event, GatewayStatusChange | SystemHealth)
    assert math.isclose(found.timestamp, events.parse_time(event.timestamp).timestamp())


def test_producers_may_add_fields_and_types() -> None:
    """Extra fields are kept, and a custom type has to define its own subject."""
    extended = SystemLog.model_validate({**LOG, "level": "warning", "host": "h1"})
    assert orjson.loads(extended.encode()) == {**LOG, "level": "WARN", "metadata": {}, "host": "h1"}
    own = EventModel(event_type="order_filled")
    assert isinstance(decode("gateway.orders.x", own.encode()), Event)
    with pytest.raises(NotImplementedError, match="EventModel defines neither SUBJECT nor subject"):
        _ = own.subject
