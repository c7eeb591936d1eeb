"""Feeds by subject, compared with matching each pair, while feeds and subjects come and go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.core.fanout import feed_index
from tickertape.relay.core.fanout.feed import Feed, FeedKey
from tickertape.relay.core.fanout.feed_index import MAX_CHANGES, FeedIndex
from tickertape.relay.core.filters import Filter

SUBJECTS = ["log.info.x", "log.error.x", "log.error.y", "gateway.status.ctp.a"]
FILTERS = [
    Filter((">",)),
    Filter(("log.>",), "ERROR"),
    Filter(("log.*.x", "gateway.>")),
    Filter((">",), "DEBUG", ("log.error.*",)),
    Filter(("system.>",)),
]


def add(index: FeedIndex, event_filter: Filter) -> Feed:
    """Add a member to the feed of a filter."""
    feed = index.feed(FeedKey(event_filter.key, "live", 0.0), event_filter, 0.0)
    feed.members += 1
    return feed


def leave(index: FeedIndex, feed: Feed) -> None:
    """Remove a member from a feed."""
    feed.members -= 1
    if not feed.members:
        index.remove(feed)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, MAX_CHANGES)), max_size=30))
def test_an_event_meets_the_feeds_that_match_it(steps: list[tuple[int, int, int]]) -> None:
    """However feeds came and went since the last event of a subject, the next meets those that match it."""
    index = FeedIndex()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feed_index, "MAX_KNOWN_SUBJECTS", 3)
        members: list[Feed] = []
        for what, number, times in steps:
            for _ in range(times if what else 1):
                if what == 0 or not members:
                    members.append(add(index, FILTERS[number]))
                elif what == 1:
                    leave(index, members.pop(number % len(members)))
                else:
                    members.append(members.pop(0))
                    leave(index, members.pop())
            subject = SUBJECTS[number % len(SUBJECTS)]
            route = index.route(subject)
            if route.version != index.version:
                index.update(route)
            expected = {feed for feed in index.feeds.values() if feed.filter.test(subject)}
            assert set(route.feeds) == expected
            assert len(route.feeds) == len(expected)
            assert all(feed.members for feed in route.feeds)


def test_a_subscription_costs_no_time_or_memory_per_subject() -> None:
    """A feed that comes and goes touches no route, and a route that met it keeps little."""
    index = FeedIndex()
    routes = [index.route(f"log.info.s{number}") for number in range(1_000)]
    lasting = add(index, FILTERS[0])
    for route in routes:
        index.update(route)
    brief = add(index, Filter((*(f"log.*.{number}" for number in range(64)), ">")))
    assert [route.feeds for route in routes] == [[lasting]] * 1_000
    index.update(routes[0])
    assert routes[0].feeds == [lasting, brief]
    leave(index, brief)
    assert brief.filter.subjects == (">",)
    index.update(routes[0])
    assert routes[0].feeds == [lasting]
