"""Filters that select the events of a client."""

import pytest
from tickertape.relay.core import filters
from tickertape.relay.core.filters import RANK, Filter, Route


@pytest.mark.parametrize(
    ("subjects", "level", "subject", "expected"),
    [
        ((">",), "DEBUG", "log.debug.x", True),
        ((">",), "WARN", "log.info.x", False),
        ((">",), "WARN", "log.warn.x", True),
        ((">",), "CRITICAL", "gateway.status.ctp.a", True),
        ((">",), "CRITICAL", "gateway.recovery.ctp.a", True),
        ((">",), "CRITICAL", "log.nonsense.x", True),
        (("log.*.x", "system.>"), "DEBUG", "log.info.x", True),
        (("log.*.x", "system.>"), "DEBUG", "system.health.relay", True),
        (("log.*.x", "system.>"), "DEBUG", "log.info.y", False),
        (("log.error.>",), "CRITICAL", "log.error.x", False),
    ],
)
def test_patterns_and_level_select_events(
    subjects: tuple[str, ...], level: str, subject: str, expected: bool
) -> None:
    """An event matches if one pattern matches and its level, if the subject names one, is high enough."""
    requested = Filter(subjects, level)
    assert requested.matches(subject) is expected
    assert requested.matches(subject) is expected, "the cached result is the same"


def test_the_order_of_patterns_does_not_matter() -> None:
    """Filters with the same patterns in another order are equal, so their clients share a feed."""
    assert Filter(("a", "b"), "INFO").key == Filter(("b", "a"), "INFO").key
    assert Filter(("a",), "INFO").key != Filter(("a",), "WARN").key


def test_cached_matches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of match results is bounded, and a filter stays correct when it overflows."""
    monkeypatch.setattr(filters, "MAX_CACHED_MATCHES", 10)
    expected = Filter(("log.*.even",))
    for number in range(35):
        assert expected.matches(f"log.s{number}.even")
        assert not expected.matches(f"log.s{number}.odd")
        assert len(expected._matches) <= 10


@pytest.mark.parametrize(
    ("subject", "bucket", "rank"),
    [
        ("log.error.a.b", "log.error", RANK["ERROR"]),
        ("log.debug.x", "log.debug", RANK["DEBUG"]),
        ("gateway.recovery.ctp.a", "gateway.recovery", RANK["INFO"]),
        ("system.health.relay", "system.health", RANK["INFO"]),
        ("log", "log", RANK["INFO"]),
    ],
)
def test_a_route_knows_its_bucket_and_rank(subject: str, bucket: str, rank: int) -> None:
    """A route's bucket is its first two tokens; its rank is the level in the subject, or INFO."""
    route = Route(subject)
    assert (route.subject, route.bucket, route.rank) == (subject, bucket, rank)


def test_repr() -> None:
    """The reprs of filters and routes are readable in logs and on the status page."""
    assert repr(Filter(("log.>", "system.>"), "WARN")) == "Filter(log.>,system.> >= WARN)"
    assert repr(Route("log.info.x")) == "Route('log.info.x', 0 feeds)"
