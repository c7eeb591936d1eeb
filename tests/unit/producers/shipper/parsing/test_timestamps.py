"""Conversion of timestamps in logs to RFC 3339 in UTC."""

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
    """Set the host's time zone to Berlin."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def make_parser(zone: ZoneInfo | None = SHANGHAI, now: float = NOW) -> TimestampParser:
    parser = TimestampParser(zone)
    parser.set_reference_time(now)
    return parser


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2025-06-24T10:30:45.123Z", "2025-06-24T10:30:45.123Z"),
        ("2025-06-24T10:30:45Z", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24t10:30:45.5z", "2025-06-24T10:30:45.500Z"),
        ("2025-06-24T10:30:45.123456789Z", "2025-06-24T10:30:45.123456789Z"),
        ("2025-06-24T10:30:45.1234567891234Z", "2025-06-24T10:30:45.123456789Z"),
        ("2025-06-24T10:30:45+08:00", "2025-06-24T02:30:45.000Z"),
        ("2025-06-24T10:30:45.667Z: lost", "2025-06-24T10:30:45.667Z"),
        ("2025-06-24 10:30:45 UTC: lost", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24T10:30:45-05:00: lost", "2025-06-24T15:30:45.000Z"),
        ("2025-06-24T10:30:45-0530", "2025-06-24T16:00:45.000Z"),
        ("2025-06-24 10:30:45,123", "2025-06-24T02:30:45.123Z"),
        ("2025-06-24 10:30:45.123+00", "2025-06-24T10:30:45.123Z"),
        ("2025-06-24 10:30:45.123-05 x", "2025-06-24T15:30:45.123Z"),
        ("2025-06-24 10:30:45 -05 x", "2025-06-24T02:30:45.000Z"),
        ("2025-06-24 10:30:45 +2:00", "2025-06-24T08:30:45.000Z"),
        ("2025-06-24 10:30:45 (UTC)", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24 10:30:45 [UTC] x", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24 10:30:45|UTC|x", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24 10:30:45  GMT x", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24 10:30:45 utc", "2025-06-24T10:30:45.000Z"),
        ("2025-06-24 10:30:45 Europe/Berlin", "2025-06-24T08:30:45.000Z"),
        ("2025-06-24 10:30:45 Europe/Nowhere", None),
        ("2025-06-24-10.30.45.123456+120", "2025-06-24T08:30:45.123456Z"),
        ("2025-06-24 10:30:45 PM UTC", "2025-06-24T22:30:45.000Z"),
        ("2025-06-24 22:30:45 PM UTC", "2025-06-24T22:30:45.000Z"),
        ("2025-06-24 10:30:45 pm is up", "2025-06-24T02:30:45.000Z"),
        ("Tue Jun 24 2025 10:30:45 GMT+0200 (CEST)", "2025-06-24T08:30:45.000Z"),
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
def test_texts_are_parsed(text: str, written: str | None) -> None:
    """Timestamps of many formats are parsed; one without a zone is in the configured zone."""
    assert make_parser().parse_text(text) == written


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
def test_unix_timestamps_are_parsed(number: object, written: str | None) -> None:
    """UNIX timestamps are parsed; their magnitude determines the unit."""
    assert make_parser().parse_value(number) == written


@pytest.mark.usefixtures("berlin")
def test_without_a_zone_timestamps_are_local_time() -> None:
    """Without a configured zone, a timestamp is in the host's zone, including daylight saving time."""
    parser = make_parser(None)
    assert parser.parse_text("2025-06-24 10:30:45") == "2025-06-24T08:30:45.000Z"
    assert parser.parse_text("2025-01-24 10:30:45") == "2025-01-24T09:30:45.000Z"
    assert parser.parse_text("2025-03-30 01:59:59") == "2025-03-30T00:59:59.000Z"
    assert parser.parse_text("2025-03-30 03:00:00") == "2025-03-30T01:00:00.000Z"


@pytest.mark.parametrize(
    ("now", "text", "year"),
    [
        ((2025, 6, 24), "Jun 24", 2025),
        ((2025, 1, 1), "Dec 31", 2024),
        ((2025, 12, 31), "Jan  1", 2026),
        ((2025, 12, 30), "Jan  1", 2025),
        ((2025, 6, 24), "02-28", 2025),
        ((2025, 6, 24), "06-30", 2024),
        ((2025, 2, 1), "Feb 29", 2024),
    ],
)
def test_a_missing_year_is_at_most_a_day_in_the_future(
    now: tuple[int, int, int], text: str, year: int
) -> None:
    """A date without a year is the last one that is at most a day after now, also around New Year."""
    parser = make_parser(ZoneInfo("UTC"), datetime(*now, 12, tzinfo=UTC).timestamp())
    for fraction in ("5", "25"):
        found = parser.find(f"{text} 10:30:45.{fraction} up")
        assert found is not None
        written = found[2]
        assert written is not None
        assert written.startswith(f"{year}-")
        assert written.endswith(f"T10:30:45.{fraction:0<3}Z")


@pytest.mark.parametrize("text", ["Feb 30 10:30:45 up", "[24/Bad/2025:10:30:45] up", "13-01 10:30:45.5 up"])
def test_a_date_that_never_exists_is_not_a_timestamp(text: str) -> None:
    """A date that does not exist in any year is not a timestamp, and raises no error."""
    found = make_parser().find(text)
    assert found is None or found[2] is None


@given(
    st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)),
    st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe"]),
)
def test_zones_agree_with_python(moment: datetime, zone: str) -> None:
    """Results agree with Python's zoneinfo, also for the cached offset of a minute."""
    parser = make_parser(ZoneInfo(zone))
    for local in (moment.replace(second=0), moment):
        written = parser.parse_text(local.isoformat(" ", "milliseconds"))
        assert written is not None
        # In an hour that is repeated the first occurrence is used, because a text does not contain the
        # offset.
        expected = local.replace(microsecond=local.microsecond // 1000 * 1000, tzinfo=ZoneInfo(zone), fold=0)
        assert parse_time(written) == expected.astimezone(UTC)


@given(st.one_of(st.text(max_size=30), st.integers(), st.floats(), st.from_regex(r"[0-9:T. +-]{0,40}")))
def test_every_result_is_valid(value: object) -> None:
    """Any value results in a valid timestamp or in none."""
    written = make_parser().parse_value(value)
    assert written is None or parse_time(written).tzinfo is not None
