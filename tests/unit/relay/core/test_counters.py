"""Counters of the hub."""

import pytest
from tickertape.relay.core.counters import DELAY_BUCKETS, MAX_AGE, MAX_AHEAD, Exemplar, Histogram, Stats
from tickertape.relay.core.event_log import Record
from tickertape.relay.core.filters import Route


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(-1.0, 0), (0.0, 0), (0.0005, 0), (0.0006, 1), (1.0, 10), (60.0, 15), (60.1, 16), (1e9, 16)],
)
def test_a_delay_falls_into_the_bucket_that_holds_it(seconds: float, bucket: int) -> None:
    """A delay on a bound belongs to that bound's bucket, as in Prometheus; a negative one counts as zero."""
    histogram = Histogram()
    histogram.observe(seconds, 3)
    assert histogram.counts[bucket] == sum(histogram.counts) == 3
    assert histogram.total == max(0.0, seconds) * 3


def test_buckets_are_in_ascending_order() -> None:
    """Histogram buckets are unique and in ascending order, as Prometheus requires."""
    assert sorted(set(DELAY_BUCKETS)) == list(DELAY_BUCKETS)


def test_repr() -> None:
    """The repr of a histogram shows the count and the sum of its observations."""
    histogram = Histogram()
    histogram.observe(0.5, 4)
    assert repr(histogram) == "Histogram(4 observed, 2.000 s in total)"


def test_relays_in_one_process_share_no_counters() -> None:
    """Two relays in one process share no counters."""
    one, other = Stats(), Stats()
    one.received["log"] += 1
    one.delay.observe(1.0, 1)
    assert other.received == {"state": 0, "log": 0}
    assert sum(other.delay.counts) == 0


@pytest.mark.parametrize(
    ("seconds", "observed", "past", "future"),
    [
        (MAX_AGE, 2, 0, 0),
        (MAX_AGE + 1, 0, 2, 0),
        (6.4e10, 0, 2, 0),
        (-MAX_AHEAD, 2, 0, 0),
        (-2.5e11, 0, 0, 2),
    ],
)
def test_an_implausible_age_is_an_outlier(seconds: float, observed: int, past: int, future: int) -> None:
    """An implausible age is counted as an outlier and does not enter the sum."""
    stats = Stats()
    stats.observe_age(seconds, 2)
    assert (sum(stats.age.counts), stats.age_outliers) == (observed, {"past": past, "future": future})
    assert stats.age.total <= 2 * MAX_AGE


def test_the_newest_exemplar_of_a_bucket_is_kept() -> None:
    """Each bucket keeps its newest exemplar, and events without a delivery add none."""
    route = Route("log.info.x")
    histogram = Histogram((0.1, 1.0))
    for seq, (seconds, times) in enumerate([(0.05, 1), (0.5, 2), (0.06, 1), (2.0, 0)]):
        record = Record(seq, route, b"", False, False, 0.0, 0.0, 0)
        histogram.observe(seconds, times, Exemplar(record, float(seq)))
    found = {
        bucket: (exemplar.record.seq, seconds) for bucket, (exemplar, seconds) in histogram.exemplars.items()
    }
    assert found == {0: (2, 0.06), 1: (1, 0.5)}
