"""The events as models: what producers make, and how times are read and written."""

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
def test_times_are_read(text: str, seconds: float) -> None:
    """RFC 3339 in all its forms gives the same UNIX time."""
    assert events.parse_time(text).timestamp() == pytest.approx(seconds, abs=1e-6)


@pytest.mark.parametrize(
    "text",
    ["", "2025-06-24", "2025-06-24T10:30:45", "2025-06-24 10:30:45Z", "2025-06-24T10:30Z",
     "2025-06-24T10:30:45.Z", "2025-02-30T00:00:00Z", "2025-06-24T24:00:00Z", "2025-06-24T10:30:60Z",
     "2025-06-24T10:30:45+0800", "2025-06-24T10:30:45+24:00",
     "0000-01-01T00:00:00Z", "20250624T103045Z", "2025-W26-2T10:30:45Z",
     "2025-06-24T10:30:45Z\n", " 2025-06-24T10:30:45Z", "２０２５-06-24T10:30:45Z", "2025-06-24T10:30:45,5Z"],
)  # fmt: skip
def test_other_times_are_refused(text: str) -> None:
    """What is not RFC 3339, or no day of the calendar, is no time, for a reader and for a producer."""
    with pytest.raises(ValueError):  # noqa: PT011 - the calendar's errors are Python's own
        events.parse_time(text)
    found = decode("log.info.a", orjson.dumps({**LOG, "timestamp": text}))
    assert isinstance(found, Rejection)
    assert found.reason is RejectionReason.BAD_TIMESTAMP
    with pytest.raises(ValidationError):
        SystemLog(level="INFO", message="", source="a", timestamp=text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_written_time_is_read_again(moment: datetime) -> None:
    """Times are written with milliseconds in UTC, and years with four digits."""
    text = events.format_time(moment.timestamp())
    assert len(text) == 24
    assert abs(events.parse_time(text) - moment) < timedelta(milliseconds=2)


@given(st.floats(allow_nan=False))
def test_every_moment_can_be_written(seconds: float) -> None:
    """Outside of the calendar it is the nearest moment in it; what is written is read again."""
    text = events.format_time(seconds)
    assert len(text) == 24
    within = min(max(seconds, events.MIN_TIME), events.MAX_TIME)
    assert events.parse_time(text).timestamp() == pytest.approx(within, abs=0.002)


@given(
    st.datetimes().map(datetime.isoformat),
    st.sampled_from(["Z", "+00:00", "+23:59", "-23:59"]),
    st.sampled_from(["", ".9", ".9999999999"]),
)
def test_every_time_that_is_read_can_be_written(local: str, zone: str, fraction: str) -> None:
    """With any offset, also where it leads out of the years 1 to 9999."""
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
    """What lies beyond them in UTC is written as the end itself."""
    assert events.format_time(events.parse_time(text).timestamp()) == written


def test_producers_can_give_a_datetime() -> None:
    """A time with a zone is written in UTC; one without is refused."""
    moment = datetime(2025, 6, 24, 18, 30, 45, 123_000, timezone(timedelta(hours=8)))
    # Producers may pass a datetime, which the type of the field does not say.
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
def test_what_a_producer_makes_is_accepted(event: EventModel) -> None:
    """The models' subject and payload pass decode, with the time that was filled in."""
    found = decode(event.subject, event.encode())
    assert isinstance(found, Event), found
    assert found.payload == event.encode()
    assert found.state == isinstance(event, GatewayStatusChange | SystemHealth)
    assert math.isclose(found.timestamp, events.parse_time(event.timestamp).timestamp())


def test_producers_may_add_fields_and_types() -> None:
    """Extra fields travel; a type of one's own says its subject itself."""
    extended = SystemLog.model_validate({**LOG, "level": "warning", "host": "h1"})
    assert orjson.loads(extended.encode()) == {**LOG, "level": "WARN", "metadata": {}, "host": "h1"}
    own = EventModel(event_type="order_filled")
    assert isinstance(decode("gateway.orders.x", own.encode()), Event)
    with pytest.raises(NotImplementedError, match="EventModel defines neither SUBJECT nor subject"):
        _ = own.subject
