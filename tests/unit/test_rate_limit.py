"""Token bucket and sliding window, with literal times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickertape.rate_limit import RepeatFilter, SlidingWindow, TokenBucket


def test_a_bucket_starts_full_and_refills_at_its_rate() -> None:
    """A bucket starts full and refills at its rate, up to the burst."""
    bucket = TokenBucket(2.0, 3.0, 100.0)
    assert [bucket.allow(100.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.allow(100.4)
    assert bucket.allow(100.5)
    assert [bucket.allow(500.0) for _ in range(4)] == [True, True, True, False]


def test_a_clock_that_is_set_back_refills_nothing() -> None:
    """A clock that is set back refills nothing, and no time is counted twice."""
    bucket = TokenBucket(1.0, 2.0, 100.0)
    assert bucket.allow(100.0, 2.0)
    assert not bucket.allow(50.0)
    assert not bucket.allow(100.9)
    assert bucket.allow(101.0)


def test_what_is_owed_is_bounded() -> None:
    """Debt is limited to one burst, and is impossible without ``allow_debt``."""
    bucket = TokenBucket(1.0, 5.0, 0.0)
    assert not bucket.allow(0.0, 6.0)
    assert bucket.tokens == 5.0
    assert bucket.allow(0.0, 100.0, allow_debt=True)
    assert bucket.tokens == -5.0
    assert not bucket.allow(5.9)
    assert bucket.allow(6.0)


@given(
    rate=st.floats(0.1, 1000.0),
    burst=st.floats(1.0, 100.0),
    steps=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(0, 50)), max_size=40),
)
def test_no_more_passes_than_rate_and_burst_allow(
    rate: float, burst: float, steps: list[tuple[float, int]]
) -> None:
    """Over any period at most the rate plus one burst is admitted."""
    bucket = TokenBucket(rate, burst, 0.0)
    now, passed = 0.0, 0
    for wait, tries in steps:
        now += wait
        passed += sum(bucket.allow(now) for _ in range(tries))
        assert passed <= burst + rate * now + 1e-6


def test_small_refills_add_up_to_a_whole_token() -> None:
    """Ten tenths refill a token, although their floating-point sum is slightly less than one."""
    bucket = TokenBucket(1.0, 1.0, 0.0)
    assert bucket.allow(0.0)
    for tenth in range(1, 10):
        assert not bucket.allow(tenth / 10)
    assert bucket.allow(1.0)


def test_a_bucket_describes_itself() -> None:
    """The representation shows the state for debugging."""
    assert repr(TokenBucket(2.0, 3.0, 0.0)) == "TokenBucket(3.0 of 3, 2/s)"


@pytest.mark.parametrize("most", [1, 3])
def test_a_window_allows_so_many_in_any_span(most: int) -> None:
    """A window admits its maximum within any span; rejected calls do not count."""
    window = SlidingWindow(10.0)
    assert [window.allow(most, float(now)) for now in range(5)] == [now < most for now in range(5)]
    assert [window.allow(most, 10.0 + now) for now in range(5)] == [now < most for now in range(5)]


def test_a_repeated_report_passes_once_in_a_while() -> None:
    """Each report has its own interval, and only a bounded number of them is remembered."""
    reports = RepeatFilter(60.0, max_keys=2)
    assert [reports.allow("a", now) for now in (0.0, 59.0, 60.0, 61.0)] == [True, False, True, False]
    assert reports.allow("b", 61.0)
    assert reports.allow("c", 61.0)  # forgets the oldest, which may pass again
    assert reports.allow("a", 61.0)
    assert not reports.allow("c", 61.0)
