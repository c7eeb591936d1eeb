"""Index from subjects to feeds: matching is done when a subject and a feed first meet, not for each event.

Producers choose subjects and clients choose filters, so the number of pairs that match is bounded as well as
that of subjects.
"""

from typing import Final

from tickertape.relay.core.fanout.feed import Feed, FeedKey
from tickertape.relay.core.fanout.subject_index import PatternTrie, SubjectTrie
from tickertape.relay.core.filters import MAX_KNOWN_SUBJECTS, Filter, Route

MAX_LINKS: Final = 1_000_000
"""Maximum number of pairs of a subject and a feed that matches it, which take about 200 bytes each."""


class FeedIndex:
    """Feeds by key, and the routes that lead to them.

    Attributes:
        feeds: all feeds.
        links: number of pairs of a route and a feed that it leads to.
    """

    def __init__(self) -> None:
        self.feeds: dict[FeedKey, Feed] = {}
        self.links = 0
        self._routes: dict[str, Route] = {}
        self._patterns: PatternTrie[Feed] = PatternTrie()
        self._subjects: SubjectTrie[Route] = SubjectTrie()

    def __repr__(self) -> str:
        return f"FeedIndex({len(self.feeds)} feeds, {len(self._routes)} subjects)"

    def route(self, subject: str) -> Route:
        """Return the route of a subject, created when the subject is first seen."""
        route = self._routes.get(subject)
        if route is None:
            # The oldest subject is forgotten; if it is still in use, its next event is matched again.
            if len(self._routes) >= MAX_KNOWN_SUBJECTS:
                self._forget_oldest()
            route = self._routes[subject] = Route(subject)
            self._subjects.add(subject, route)
            # Linked in both directions, so that removing either end takes time per link, not per entry.
            for feed in self._patterns.matching(subject):
                if feed.filter.passes(route):
                    self._link(route, feed)
            # Never this route, which the next event needs.
            while self.links > MAX_LINKS and len(self._routes) > 1:
                self._forget_oldest()
        return route

    def feed(self, key: FeedKey, event_filter: Filter, now: float) -> Feed:
        """Return the feed of a key, created with the routes that lead to it when first requested."""
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = Feed(key, event_filter, now)
            for pattern in event_filter.subjects:
                self._patterns.add(pattern, feed)
                for route in self._subjects.matching(pattern):
                    if event_filter.passes(route):
                        self._link(route, feed)
            while self.links > MAX_LINKS and self._routes:
                self._forget_oldest()
        return feed

    def remove(self, feed: Feed) -> None:
        """Remove a feed without members."""
        del self.feeds[feed.key]
        # The feed may still await a flush, which ignores it once nothing is pending.
        feed.clear()
        for pattern in feed.filter.subjects:
            self._patterns.discard(pattern, feed)
        self.links -= len(feed.routes)
        for route in feed.routes:
            del route.feeds[feed]
        feed.routes.clear()

    def _link(self, route: Route, feed: Feed) -> None:
        if feed not in route.feeds:  # a feed whose patterns overlap meets a subject several times
            route.feeds[feed] = None
            feed.routes[route] = None
            self.links += 1

    def _forget_oldest(self) -> None:
        subject = next(iter(self._routes))
        route = self._routes.pop(subject)
        self.links -= len(route.feeds)
        self._subjects.discard(subject, route)
        # Records in the log keep this route for its subject and rank; its feeds matter for new events only.
        for feed in route.feeds:
            del feed.routes[route]
        route.feeds.clear()
