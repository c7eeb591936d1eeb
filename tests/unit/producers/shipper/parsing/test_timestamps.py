"""Times of logs become RFC 3339 in UTC."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.events import parse_time
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2025, 6, 24, 12, tzinfo=UTC).timestamp()


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host in Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def times(zone: ZoneInfo | None = SHANGHAI, now: float = NOW) -> TimestampParser:
    reader = TimestampParser(zone)
    reader.set_reference_time(now)
    return reader


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2025-06-24T10:30:45.123Z", "2025-06-24T10:30:45.123Z"),
        ("2025-06-24T10:30:45Z", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24t10:30:45.5z", "2025-06-24T10:30:45.500Z"),
        ("2025-06-24T10:30:45.123456789Z", "2025-06-24T10:30:45.123456789Z"),
        ("2025-06-24T10:30:45.1234567891234Z", "2025-06-24T10:30:45.123456789Z"),
        ("2025-06-24T10:30:45+08:00", "2025-06-24T02:30:45.000Z"),
        ("2025-06-24T10:30:45-0530", "2025-06-24T16:00:45.000Z"),
        ("2025-06-24 10:30:45,123", "2025-06-24T02:30:45.123Z"),
        ("2025-06-24 10:30:45 UTC", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24 10:30:45 Zebra", "2025-06-24T02:30:45.000Z"),
        ("2025/06/24 10:30:45", "2025-06-24T02:30:45.000Z"),
        ("20250624 10:30:45.5", "2025-06-24T02:30:45.500Z"),
        ("2025-01-01 00:00:00", "2024-12-31T16:00:00.000Z"),
        ("1750000000", "2025-06-15T15:06:40.000Z"),
        ("1750000000.25", "2025-06-15T15:06:40.250Z"),
        ("1750000000123", "2025-06-15T15:06:40.123Z"),
        ("2025-02-30 10:30:45", None),
        ("2025-06-24 24:30:45", None),
        ("2025-06-24 10:30:60", None),
        ("2025-06-24 10:30:45+24:00", None),
        ("0001-01-01 00:00:00", None),
        ("٢٠٢٥-06-24 10:30:45", None),
        ("12345678", None),
        ("soon", None),
    ],
)
def test_texts_are_read(text: str, written: str | None) -> None:
    """A time without a zone is in the zone of the setting."""
    assert times().parse_text(text) == written


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (1750000001.5, "2025-06-15T15:06:41.500Z"),
        (1750000000, "2025-06-15T15:06:40.000Z"),
        (1750000000123, "2025-06-15T15:06:40.123Z"),
        (1750000000123456, "2025-06-15T15:06:40.123456Z"),
        (1750000000123456789, "2025-06-15T15:06:40.123456789Z"),
        (1750000000123.0, "2025-06-15T15:06:40.123Z"),
        (True, None),
        (12, None),
        (-1750000000, None),
        (10**25, None),
        (None, None),
    ],
)
def test_unix_numbers_are_read(number: object, written: str | None) -> None:
    """Their size tells the unit."""
    assert times().parse_value(number) == written


@pytest.mark.usefixtures("berlin")
def test_without_a_zone_it_is_local_time() -> None:
    """The host's zone counts, with its summer time."""
    reader = times(None)
    assert reader.parse_text("2025-06-24 10:30:45") == "2025-06-24T08:30:45.000Z"
    assert reader.parse_text("2025-01-24 10:30:45") == "2025-01-24T09:30:45.000Z"
    assert reader.parse_text("2025-03-30 01:59:59") == "2025-03-30T00:59:59.000Z"
    assert reader.parse_text("2025-03-30 03:00:00") == "2025-03-30T01:00:00.000Z"


@pytest.mark.parametrize(
    ("now", "month", "day", "year"),
    [
        ((2025, 6, 24), "Jun", "24", 2025),
        ((2025, 1, 1), "Dec", "31", 2024),
        ((2025, 12, 31), "Jan", "1", 2026),
        ((2025, 6, 24), "02", "28", 2025),
        ((2025, 2, 1), "Feb", "29", 2024),
    ],
)
def test_a_missing_year_is_the_nearest(now: tuple[int, int, int], month: str, day: str, year: int) -> None:
    """Around the turn of a year a line is not put a year away."""
    reader = times(ZoneInfo("UTC"), datetime(*now, 12, tzinfo=UTC).timestamp())
    written = reader.from_yearless_groups(month, day, "10:30", ":45", "5")
    assert written is not None
    assert written.startswith(f"{year}-")
    assert written.endswith("T10:30:45.500Z")
    assert reader.from_yearless_groups(month, day, "10:30", ":46", None) == written.replace(
        "45.500", "46.000"
    )


def test_a_day_that_no_year_has_is_no_time() -> None:
    """The reader does not fail."""
    assert times().from_yearless_groups("Feb", "30", "10:30", ":45", None) is None
    assert times().from_yearless_groups("13", "01", "10:30", ":45", None) is None


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),
    st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_zones_agree_with_python(moment: datetime, zone: str) -> None:
    """What is kept of one minute holds for all of it."""
    reader = times(ZoneInfo(zone))
    for shown in (moment.replace(second=0), moment):
        written = reader.parse_text(shown.isoformat(" ", "milliseconds"))
        assert written is not None
        # Of an hour that comes twice the first is meant: a text cannot say which.
        exact = shown.replace(microsecond=shown.microsecond // 1000 * 1000, tzinfo=ZoneInfo(zone), fold=0)
        assert parse_time(written) == exact.astimezone(UTC)


@given(st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.from_regex(r"[0-9:T. +-]{0,40}")))
def test_every_answer_is_legal(value: object) -> None:
    """Whatever is read, the answer is a time of the contract or none."""
    written = times().parse_value(value)
    assert written is None or parse_time(written).tzinfo is not None
