"""Tests, with literal times, of the token bucket's reserves and of the pacing of flushes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.core.fanout.flush_pacer import FlushPacer, TokenBucket
from tickertape.relay.core.filters import RANK

DEBUG, INFO, WARN, ERROR, CRITICAL = range(5)


def taken(bucket: TokenBucket, rank: int, tries: int = 1000) -> int:
    """Count how many events of a rank pass in a row."""
    return sum(bucket.take(rank) for _ in range(tries))


def test_ranks_are_the_levels() -> None:
    """Ranks follow the order of the log levels."""
    assert list(RANK.values()) == [DEBUG, INFO, WARN, ERROR, CRITICAL]


@pytest.mark.parametrize(
    ("rank", "passes"), [(DEBUG, 50), (INFO, 75), (WARN, 90), (ERROR, 100), (CRITICAL, 100)]
)
def test_each_level_leaves_a_reserve(rank: int, passes: int) -> None:
    """A full bucket of 100 passes as many events of each level as the protocol documents."""
    assert taken(TokenBucket(100.0, 0.0), rank) == passes


def test_errors_pass_in_a_flood_of_lower_levels() -> None:
    """Tokens that lower levels leave in reserve are available to higher levels, so errors pass a flood."""
    bucket = TokenBucket(100.0, 0.0)
    assert [taken(bucket, rank) for rank in (DEBUG, INFO, WARN, ERROR, CRITICAL)] == [50, 25, 15, 10, 0]


def test_tokens_refill_up_to_the_burst() -> None:
    """The bucket refills at its rate, up to the burst."""
    bucket = TokenBucket(100.0, 10.0)
    assert taken(bucket, ERROR) == 100
    bucket.refill(10.05)
    assert taken(bucket, ERROR) == 5
    bucket.refill(99.0)
    assert taken(bucket, ERROR) == 100


def test_time_that_goes_back_adds_no_tokens() -> None:
    """An earlier time adds no tokens and is not credited twice later."""
    bucket = TokenBucket(10.0, 10.0)
    assert taken(bucket, ERROR) == 10
    bucket.refill(5.0)
    assert taken(bucket, ERROR) == 0
    bucket.refill(10.1)
    assert taken(bucket, ERROR) == 1


@pytest.mark.parametrize("rate", [0.01, 0.5, 1.0, 1.5, 3.0])
def test_a_small_rate_starves_no_level(rate: float) -> None:
    """A full bucket passes the lowest level even at a small rate."""
    bucket = TokenBucket(rate, 0.0)
    assert taken(bucket, DEBUG) >= 1
    bucket.refill(10_000.0)
    assert taken(bucket, DEBUG) >= 1


@given(
    rate=st.floats(0.1, 1000.0),
    steps=st.lists(st.tuples(st.floats(0.0, 2.0), st.integers(0, 4), st.integers(0, 50)), max_size=40),
)
def test_rate_and_burst_are_never_exceeded(rate: float, steps: list[tuple[float, int, int]]) -> None:
    """The number of passed events never exceeds the burst plus the rate times the elapsed time."""
    bucket = TokenBucket(rate, 0.0)
    now, passed = 0.0, 0
    for wait, rank, tries in steps:
        now += wait
        bucket.refill(now)
        passed += taken(bucket, rank, tries)
        assert passed <= bucket.burst + rate * now + 1e-6


def test_an_idle_pacer_flushes_immediately() -> None:
    """A pacer that has not flushed yet allows a flush immediately."""
    assert FlushPacer().earliest() == 0.0


@pytest.mark.parametrize(
    ("took", "earliest"),
    [(0.0, 50.0), (0.001, 50.002), (0.008, 50.0192), (0.014, 50.0448), (0.030, 50.1), (0.3, 50.3)],
)
def test_flushing_takes_no_more_than_its_share(took: float, earliest: float) -> None:
    """The delay after a flush grows faster than its duration, up to 100 ms, and covers the flush itself."""
    pacer = FlushPacer(share=0.5, max_delay=0.1)
    pacer.record_flush(50.0, took)
    assert pacer.earliest() == pytest.approx(earliest)


def test_a_single_slow_flush_is_capped() -> None:
    """A single slow flush counts as at most 1.5 times the usual duration; a sustained load counts in full."""
    pacer = FlushPacer(share=0.5, max_delay=10.0)
    pacer.record_flush(50.0, 0.001)
    usual = pacer.earliest() - 50.0
    pacer.record_flush(51.0, 0.008)
    assert pacer.earliest() == 51.008  # the flush took longer than its delay would have been
    pacer.record_flush(52.0, 0.001)
    assert pacer.earliest() - 52.0 == pytest.approx(usual)
    for _ in range(20):
        pacer.record_flush(53.0, 0.008)
    assert pacer.earliest() - 53.0 > 8 * usual


def test_repr() -> None:
    """The reprs of the bucket and the pacer show their state."""
    bucket = TokenBucket(100.0, 0.0)
    bucket.take(ERROR)
    assert repr(bucket) == "TokenBucket(99.0 of 100, 100/s)"
    assert repr(FlushPacer()) == "FlushPacer(not before 0.000)"
