"""The calendar of an exchange: literal moments, and what holds at every moment."""

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
NEW_YORK = Sessions(ZoneInfo("America/New_York"), frozenset(range(5)), (parse_span("09:30-16:00"),))


def at(text: str, zone: str = "Asia/Shanghai") -> float:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-09-21 08:59:59", False),  # a Monday
        ("2026-09-21 09:00:00", True),
        ("2026-09-21 10:14:59", True),
        ("2026-09-21 10:15:00", False),  # a break
        ("2026-09-21 12:00:00", False),  # lunch
        ("2026-09-21 23:59:59", True),
        ("2026-09-22 02:29:59", True),  # over midnight
        ("2026-09-22 02:30:00", False),
        ("2026-09-21 01:00:00", False),  # Monday's small hours belong to Sunday
        ("2026-09-26 01:00:00", True),  # Saturday's belong to Friday
        ("2026-09-26 10:00:00", False),
        ("2026-10-01 10:00:00", False),  # a holiday
        ("2026-09-30 10:00:00", True),
        ("2026-09-30 22:00:00", False),  # the night before it
        ("2026-10-08 10:00:00", True),
        ("2026-10-08 01:00:00", False),
    ],
)
def test_shanghai_is_open(moment: str, is_open: bool) -> None:
    """Breaks, lunch, the night, the weekend, holidays and their eve."""
    assert SHFE.is_open(at(moment)) is is_open


@pytest.mark.parametrize(
    ("utc", "is_open"),
    [
        ("2026-03-06 14:29:59", False),  # New York is 5 hours behind
        ("2026-03-06 14:30:00", True),
        ("2026-03-09 13:30:00", True),  # and 4 from 8 March on
        ("2026-03-09 13:29:59", False),
        ("2026-03-09 20:00:00", False),
        ("2026-11-02 14:30:00", True),  # and 5 again from 1 November on
        ("2026-11-02 13:30:00", False),
    ],
)
def test_it_opens_by_the_clock_on_the_wall(utc: str, is_open: bool) -> None:
    """Daylight saving moves the moment, not the time of the day."""
    assert NEW_YORK.is_open(at(utc, "UTC")) is is_open


def test_the_next_change() -> None:
    """The end of the span, its beginning after the break, and after the holidays."""
    assert SHFE.next_change(at("2026-09-21 09:30")) == at("2026-09-21 10:15")
    assert SHFE.next_change(at("2026-09-21 10:15")) == at("2026-09-21 10:30")
    assert SHFE.next_change(at("2026-09-21 22:00")) == at("2026-09-22 02:30")
    assert SHFE.next_change(at("2026-09-30 15:00")) == at("2026-10-08 09:00")


def test_what_never_opens_never_changes() -> None:
    """A calendar of holidays alone has no next change."""
    never = Sessions(
        ZoneInfo("UTC"), frozenset({0}), (parse_span("09:00-10:00"),), frozenset(parse_holidays("2026-01-05"))
    )
    closed = Sessions(ZoneInfo("UTC"), frozenset(), (parse_span("09:00-10:00"),))
    assert closed.next_change(0.0) == float("inf")
    assert never.next_change(at("2026-01-01 00:00", "UTC")) == at("2026-01-12 09:00", "UTC")


@given(st.floats(at("2026-01-01 00:00"), at("2026-12-31 00:00")), st.sampled_from([SHFE, NEW_YORK]))
def test_nothing_changes_before_the_next_change(now: float, sessions: Sessions) -> None:
    """Up to it all is as it is now, and at it all is otherwise."""
    change = sessions.next_change(now)
    assert change > now
    assert sessions.is_open(change) is not sessions.is_open(now)
    for part in (0.1, 0.5, 0.9, 0.999):
        assert sessions.is_open(now + (change - now) * part) is sessions.is_open(now)


@pytest.mark.parametrize("text", ["", "9:00-10:00", "09:00", "09:00-25:00", "09:00-1O:00", "٠٩:00-10:00"])
def test_what_is_no_span(text: str) -> None:
    """It is refused with what would be right."""
    with pytest.raises(ValueError, match="as in 09:00-11:30"):
        parse_span(text)


@pytest.mark.parametrize(
    "text", ["", "2026-13-01", "2026-10-07..2026-10-01", "2020-01-01..2026-01-01", "soon"]
)
def test_what_is_no_holiday(text: str) -> None:
    """Neither a day nor days in order."""
    with pytest.raises(ValueError, match=r"is not a day|a range has"):
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
def test_spans_lie_apart(spans: tuple[str, ...], apart: bool) -> None:
    """Over midnight too."""
    parsed: tuple[Span, ...] = tuple(map(parse_span, spans))
    assert (find_overlap(parsed) is None) is apart
