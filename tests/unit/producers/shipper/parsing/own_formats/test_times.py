"""Times of own formats: directives, UNIX time and built-in forms."""

import re
import string
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.contracts.events import parse_time
from tickertape.producers.shipper.parsing.own_formats.times import NAMES, OwnTime, TimePattern, make_time

SHANGHAI = ZoneInfo("Asia/Shanghai")
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC).timestamp()


def converter(form: str, zone: ZoneInfo = SHANGHAI) -> OwnTime:
    """Return a converter at a fixed time."""
    time = make_time(TimePattern(form) if "%" in form else form, zone)
    time.set_reference_time(NOW)
    return time


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("%Y.%m.%d %H:%M:%S.%f", "2026.01.31 09:30:45.5", "2026-01-31T01:30:45.500Z"),
        ("%Y.%m.%d %H:%M:%S.%f", "2026.01.31 09:30:45", "2026-01-31T01:30:45.000Z"),
        ("%Y%m%d%H%M%S%f", "20260131093045123456", "2026-01-31T01:30:45.123456Z"),
        ("%Y%m%d-%T:%f", "20260131-09:30:45:007", "2026-01-31T01:30:45.007Z"),
        ("%F %T", "2026-01-31 09:30:45", "2026-01-31T01:30:45.000Z"),
        ("%D %R", "01/31/26 09:30", "2026-01-31T01:30:00.000Z"),
        ("%d/%m/%Y %I:%M:%S %p", "03/04/2026 09:30:45 PM", "2026-04-03T13:30:45.000Z"),
        ("%d/%m/%Y %I:%M %p", "03/04/2026 12:30 am", "2026-04-02T16:30:00.000Z"),
        ("%a, %d %b %Y %H:%M:%S %z", "Sat, 31 Jan 2026 09:30:45 -0500", "2026-01-31T14:30:45.000Z"),
        ("%A %d %B %Y %H:%M:%S %Z", "Saturday 31 January 2026 09:30:45 UTC", "2026-01-31T09:30:45.000Z"),
        ("%H:%M:%S %d.%m.%y", "09:30:45 31.01.26", "2026-01-31T01:30:45.000Z"),
        ("%Y-%j %H:%M:%S", "2026-031 09:30:45", "2026-01-31T01:30:45.000Z"),
        ("%b %e %H:%M:%S", "Jan  5 09:30:45", "2026-01-05T01:30:45.000Z"),
        ("%b %e %H:%M:%S", "Dec 31 09:30:45", "2025-12-31T01:30:45.000Z"),
        ("%H:%M:%S.%f", "19:30:45.25", "2026-07-01T11:30:45.250Z"),
        ("%H:%M:%S.%f", "21:30:45.25", "2026-06-30T13:30:45.250Z"),
        ("100%% %Y-%m-%d %H:%M", "100% 2026-01-31 09:30", "2026-01-31T01:30:00.000Z"),
        ("[%Y+%m*%d] %H:%M", "[2026+01*31] 09:30", "2026-01-31T01:30:00.000Z"),
        ("iso", "2026-01-31T09:30:45.123Z", "2026-01-31T09:30:45.123Z"),
        ("iso", "2026-01-31 09:30:45", "2026-01-31T01:30:45.000Z"),
        ("auto", "31/Jan/2026:09:30:45 +0000", "2026-01-31T09:30:45.000Z"),
        ("auto", "1769851845.25", "2026-01-31T09:30:45.250Z"),
        ("auto", "1769851845250", "2026-01-31T09:30:45.250Z"),
        ("auto", "19:30:45.25", "2026-07-01T11:30:45.250Z"),
        ("epoch", "1769851845", "2026-01-31T09:30:45.000Z"),
        ("epoch", "1769851845.123456789", "2026-01-31T09:30:45.123456789Z"),
        ("epoch_ms", "1769851845123", "2026-01-31T09:30:45.123Z"),
        ("epoch_ms", "5", "1970-01-01T00:00:00.005Z"),
        ("epoch_us", "1769851845123456", "2026-01-31T09:30:45.123456Z"),
        ("epoch_ns", "1769851845123456789", "2026-01-31T09:30:45.123456789Z"),
    ],
)
def test_a_time_is_converted(form: str, text: str, expected: str) -> None:
    """A time is converted to UTC, by its own zone or that of the format."""
    time = converter(form)
    assert time.parse(text) == expected
    assert time.parse(text) == expected, "from the cache"
    parse_time(expected)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%Y-%m-%d %H:%M", "2026-02-30 09:30"),
        ("%Y-%m-%d %H:%M", "2026-02-03 24:30"),
        ("%Y-%m-%d %H:%M", "2026-02-03 09:30 "),
        ("%Y-%m-%d %H:%M", "٢٠٢٦-02-03 09:30"),
        ("%d %b %Y %H:%M", "3 Foo 2026 09:30"),
        ("%d/%m/%Y %I:%M %p", "03/04/2026 13:30 PM"),
        ("%Y-%m-%d %H:%M %Z", "2026-02-03 09:30 IST"),
        ("iso", "31/Jan/2026:09:30:45 +0000"),
        ("auto", "soon"),
        ("epoch", "253402300800"),
        ("epoch", "-1"),
        ("epoch_ms", "1e3"),
    ],
)
def test_what_is_no_time_is_none(form: str, text: str) -> None:
    """A text that is not a time of the format, or not one that exists, is no time."""
    time = converter(form)
    assert time.parse(text) is None
    assert time.parse(text) is None, "from the cache"


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("%Y-%m-%d %H:%M %Q", "%Q is not known; use one of %A"),
        ("%Y-%m-%d %H:%M %", "% at the end is not known"),
        ("%s", 'write time = "epoch"'),
        ("100%%", "no directive"),
        ("%Y-%m-%d", "no hour and minute"),
        ("%Y-%m-%d %H:%M %H", "%H or a directive of the same meaning twice"),
        ("%Y-%m-%d %I:%M", "%I without %p"),
        ("%Y-%m %H:%M", "day or a month only"),
        ("%d %H:%M", "day or a month only"),
        ("%Y %H:%M", "year without a day"),
        ("%j %H:%M", "%j; combine it with %Y only"),
        ("%Y %y-%m-%d %H:%M", "two directives"),
        ("%H:%M.%f", "%f that does not follow %S"),
        ("%H:%M:%S %Y-%m-%d .%f", "%f that does not follow %S"),
    ],
)
def test_directives_that_denote_no_time_are_rejected(form: str, expected: str) -> None:
    """A format that could never be converted is rejected with what to do."""
    with pytest.raises(ValueError, match=re.escape(expected)):
        TimePattern(form)


@given(st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1)))
def test_any_moment_is_converted_as_strptime_does(moment: datetime) -> None:
    """A moment that ``strftime`` has written is read back."""
    zone = ZoneInfo("UTC")
    for form in ("%Y-%m-%d %H:%M:%S.%f", "%d %B %Y %I:%M:%S.%f %p", "%Y%m%d%H%M%S%f", "%A %Y-%j %T,%f"):
        read = converter(form, zone).parse(moment.strftime(form))
        assert read is not None
        assert parse_time(read) == moment.replace(tzinfo=UTC)


@given(st.text(string.printable, max_size=40), st.sampled_from([*NAMES, "%Y-%m-%d %H:%M:%S.%f %z", "%T"]))
def test_any_text_is_read(text: str, form: str) -> None:
    """No text raises, and every result is a time of the contract."""
    read = converter(form).parse(text)
    if read is not None:
        assert abs(parse_time(read) - datetime(2026, 1, 1, tzinfo=UTC)) < timedelta(days=3_000_000)
