"""Index from subjects to feeds: a feed is matched when an event of a subject first meets it.

Invariants:

1. The feeds of a route are those of its ``version``; they are brought up to date before an event is offered.
2. A client that subscribes costs time and memory for its own patterns, however many subjects there are.
3. Producers choose subjects and clients choose filters, so the number of pairs that match is bounded as well
   as that of subjects.
"""

from collections import deque
from itertools import chain
from typing import Final

from tickertape.relay.core.fanout.feed import Feed, FeedKey
from tickertape.relay.core.fanout.pattern_trie import PatternTrie
from tickertape.relay.core.filters import MAX_KNOWN_SUBJECTS, Filter, Route

MAX_LINKS: Final = 4_000_000
"""Maximum number of pairs of a subject and a feed that matches it, which take 8 bytes each."""

MAX_CHANGES: Final = 32
"""Maximum number of changes that a route makes up for one by one; after more, its feeds are looked up."""

_REMOVED: Final = Filter((">",))
_REMOVED_KEY: Final = FeedKey(_REMOVED.key, "live", 0.0)


class FeedIndex:
    """Feeds by key, and by the subjects that they match.

    Attributes:
        feeds: all feeds by key.
        version: number of feeds that were added and removed.
        links: number of pairs of a route and a feed.
    """

    def __init__(self) -> None:
        self.feeds: dict[FeedKey, Feed] = {}
        self.version = 0
        self.links = 0
        self._routes: dict[str, Route] = {}
        self._patterns: PatternTrie[Feed] = PatternTrie()
        self._changes: deque[Feed] = deque(maxlen=MAX_CHANGES)  # the feeds added or removed last

    def __repr__(self) -> str:
        return f"FeedIndex({len(self.feeds)} feeds, {len(self._routes)} subjects)"

    def route(self, subject: str) -> Route:
        """Return the route of a subject, created when the subject is first seen."""
        route = self._routes.get(subject)
        if route is None:
            # The oldest subject is forgotten; if it is still in use, its next event is matched again.
            # Records in the log keep its route for the subject and the rank.
            if len(self._routes) >= MAX_KNOWN_SUBJECTS:
                self._forget_oldest()
            route = self._routes[subject] = Route(subject)
        return route

    def update(self, route: Route) -> None:
        """Update the feeds of a route."""
        missed, known = self.version - route.version, route.links
        if route.version >= 0 and missed <= len(self._changes):
            changed = list(self._changes)[-missed:]
            # A feed without members was removed.
            feeds = [feed for feed in chain(route.feeds, *route.conditional.values()) if feed.members]
            feeds += [feed for feed in changed if feed.members and feed.filter.test(route.subject)]
        else:
            feeds = [feed for feed in self._patterns.matching(route.subject) if feed.filter.passes(route)]
        route.feeds, route.conditional = [feed for feed in feeds if feed.filter.where is None], {}
        for feed in feeds if len(feeds) > len(route.feeds) else ():
            if feed.filter.where is not None:
                route.conditional.setdefault(feed.filter.where, []).append(feed)
        route.version = self.version
        if self._routes.get(route.subject) is route:
            self.links += route.links - known
            if self.links > MAX_LINKS:
                # Moved to the end, since its event is about to be offered.
                self._routes[route.subject] = self._routes.pop(route.subject)
                while self.links > MAX_LINKS and len(self._routes) > 1:
                    self._forget_oldest()

    def feed(self, key: FeedKey, event_filter: Filter, now: float) -> Feed:
        """Return the feed of a key, created when first requested."""
        feed = self.feeds.get(key)
        if feed is None:
            feed = self.feeds[key] = Feed(key, event_filter, now)
            for pattern in event_filter.subjects:
                self._patterns.add(pattern, feed)
            self._record(feed)
        return feed

    def remove(self, feed: Feed) -> None:
        """Remove a feed without members."""
        del self.feeds[feed.key]
        # The feed may still await a flush, which ignores it once nothing is pending.
        feed.clear()
        for pattern in feed.filter.subjects:
            self._patterns.discard(pattern, feed)
        # Routes without further events keep a reference to the feed, which must cost little.
        feed.filter, feed.key = _REMOVED, _REMOVED_KEY
        feed.blocks.clear()
        self._record(feed)

    def _forget_oldest(self) -> None:
        forgotten = self._routes.pop(next(iter(self._routes)))
        self.links -= forgotten.links
        forgotten.feeds, forgotten.conditional, forgotten.version = [], {}, -1

    def _record(self, feed: Feed) -> None:
        self.version += 1
        self._changes.append(feed)
