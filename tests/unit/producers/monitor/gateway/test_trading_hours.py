"""Trading hours of an exchange, with literal times and with properties that hold at any time."""

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.producers.monitor.gateway.trading_hours import (
    Sessions,
    Span,
    find_overlap,
    parse_holidays,
    parse_span,
)

SHFE_SPANS = ("09:00-10:15", "10:30-11:30", "13:30-15:00", "21:00-02:30")
SHFE = Sessions(
    ZoneInfo("Asia/Shanghai"),
    frozenset(range(5)),
    tuple(map(parse_span, SHFE_SPANS)),
    frozenset(parse_holidays("2026-10-01..2026-10-07")),
    night_before_holiday=False,
)
NIGHT_FIRST = replace(SHFE, spans=SHFE.spans[::-1])
"""The same hours, written as a trading day begins there: with the night before."""

NEW_YORK = Sessions(ZoneInfo("America/New_York"), frozenset(range(5)), (parse_span("09:30-16:00"),))


def at(text: str, zone: str = "Asia/Shanghai") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-09-21 08:59:59", False),  # Monday
        ("2026-09-21 09:00:00", True),
        ("2026-09-21 10:14:59", True),
        ("2026-09-21 10:15:00", False),  # morning break
        ("2026-09-21 12:00:00", False),  # lunch
        ("2026-09-21 23:59:59", True),
        ("2026-09-22 02:29:59", True),  # after midnight
        ("2026-09-22 02:30:00", False),
        ("2026-09-21 01:00:00", False),  # the night from Sunday to Monday belongs to Sunday
        ("2026-09-26 01:00:00", True),  # the night from Friday to Saturday belongs to Friday
        ("2026-09-26 10:00:00", False),
        ("2026-10-01 10:00:00", False),  # holiday
        ("2026-09-30 10:00:00", True),
        ("2026-09-30 22:00:00", False),  # night before the holiday
        ("2026-10-08 10:00:00", True),
        ("2026-10-08 01:00:00", False),
    ],
)
def test_opening_hours_of_shanghai(moment: str, is_open: bool) -> None:
    """The exchange is closed on breaks, weekends and holidays, and on the night before a holiday."""
    assert SHFE.is_open(at(moment)) is is_open


HALF = replace(
    SHFE,
    half_days={
        day: (parse_span("09:00-11:00"), parse_span("13:00-13:30"))
        for day in parse_holidays("2026-12-24..2026-12-26")
    },
)


@pytest.mark.parametrize(
    ("moment", "is_open", "next_change"),
    [
        ("2026-12-24 08:00:00", False, "2026-12-24 09:00:00"),  # Thursday
        ("2026-12-24 10:20:00", True, "2026-12-24 11:00:00"),  # no morning break
        ("2026-12-24 14:00:00", False, "2026-12-25 09:00:00"),  # neither an afternoon nor a night
        ("2026-12-24 02:00:00", True, "2026-12-24 02:30:00"),  # the night belongs to the day before
        ("2026-12-26 10:00:00", True, "2026-12-26 11:00:00"),  # a Saturday on which the exchange opens
        ("2026-12-26 14:00:00", False, "2026-12-28 09:00:00"),
        ("2026-12-28 14:00:00", True, "2026-12-28 15:00:00"),
    ],
)
def test_a_half_day_has_its_own_hours(moment: str, is_open: bool, next_change: str) -> None:
    """The usual spans of that day do not take place; those of the days before and after do."""
    assert HALF.is_open(at(moment)) is is_open
    assert HALF.next_change(at(moment)) == at(next_change)


@pytest.mark.parametrize(
    ("utc", "is_open"),
    [
        ("2026-03-06 14:29:59", False),  # UTC-5
        ("2026-03-06 14:30:00", True),
        ("2026-03-09 13:30:00", True),  # UTC-4 from 8 March
        ("2026-03-09 13:29:59", False),
        ("2026-03-09 20:00:00", False),
        ("2026-11-02 14:30:00", True),  # UTC-5 from 1 November
        ("2026-11-02 13:30:00", False),
    ],
)
def test_opening_hours_are_in_local_time(utc: str, is_open: bool) -> None:
    """An exchange opens at the same local time in summer and in winter."""
    assert NEW_YORK.is_open(at(utc, "UTC")) is is_open


@pytest.mark.parametrize("sessions", [SHFE, NIGHT_FIRST])
def test_the_next_change(sessions: Sessions) -> None:
    """The next change ends the current span, or starts the next one after a break or holidays."""
    assert sessions.next_change(at("2026-09-21 08:00")) == at("2026-09-21 09:00")
    assert sessions.next_change(at("2026-09-21 09:30")) == at("2026-09-21 10:15")
    assert sessions.next_change(at("2026-09-21 10:15")) == at("2026-09-21 10:30")
    assert sessions.next_change(at("2026-09-21 22:00")) == at("2026-09-22 02:30")
    assert sessions.next_change(at("2026-09-30 15:00")) == at("2026-10-08 09:00")


def test_an_exchange_that_never_opens_has_no_next_change() -> None:
    """An exchange without trading days has no next change; a holiday only postpones it."""
    never = Sessions(
        ZoneInfo("UTC"), frozenset({0}), (parse_span("09:00-10:00"),), frozenset(parse_holidays("2026-01-05"))
    )
    closed = Sessions(ZoneInfo("UTC"), frozenset(), (parse_span("09:00-10:00"),))
    assert closed.next_change(0.0) == float("inf")
    assert never.next_change(at("2026-01-01 00:00", "UTC")) == at("2026-01-12 09:00", "UTC")


@given(
    st.floats(at("2026-01-01 00:00"), at("2026-12-31 00:00")), st.sampled_from([SHFE, NIGHT_FIRST, NEW_YORK])
)
def test_nothing_changes_before_the_next_change(now: float, sessions: Sessions) -> None:
    """Until the next change the exchange stays as it is, and at the next change it opens or closes."""
    change = sessions.next_change(now)
    assert change > now
    assert sessions.is_open(change) is not sessions.is_open(now)
    for part in (0.1, 0.5, 0.9, 0.999):
        assert sessions.is_open(now + (change - now) * part) is sessions.is_open(now)


@pytest.mark.parametrize("text", ["", "9:00-10:00", "09:00", "09:00-25:00", "09:00-1O:00", "٠٩:00-10:00"])
def test_invalid_spans(text: str) -> None:
    """An invalid span is rejected with an example of a valid one."""
    with pytest.raises(ValueError, match="use the form 09:00-11:30"):
        parse_span(text)


@pytest.mark.parametrize(
    "text", ["", "2026-13-01", "2026-10-07..2026-10-01", "2020-01-01..2026-01-01", "soon"]
)
def test_invalid_holidays(text: str) -> None:
    """Invalid days, and ranges that are reversed or too long, are rejected."""
    with pytest.raises(ValueError, match=r"is not a date|a range has"):
        parse_holidays(text)


@pytest.mark.parametrize(
    ("spans", "apart"),
    [
        (SHFE_SPANS, True),
        (("09:00-10:00", "09:30-11:00"), False),
        (("21:00-02:30", "22:00-23:00"), False),
        (("21:00-09:30", "09:00-10:00"), False),
        (("09:00-10:00", "10:00-11:00"), True),
    ],
)
def test_overlapping_spans_are_found(spans: tuple[str, ...], apart: bool) -> None:
    """Overlapping spans are found, even across midnight; adjacent spans do not overlap."""
    parsed: tuple[Span, ...] = tuple(map(parse_span, spans))
    assert (find_overlap(parsed) is None) is apart
