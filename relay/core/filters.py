"""Filters (subject patterns, a minimum level and a condition), and routes from subjects to matching feeds.

Invariants:

1. Whether a filter matches a subject is cached; its condition then decides about each log event.
2. The cache is bounded; exceeding the bound clears it, which costs only time.
"""

from typing import Any, Final, Protocol

from tickertape.contracts.encode import encode_event_prefix
from tickertape.contracts.subjects import LEVELS, covers, intersect, level_of, matches
from tickertape.relay.core.where.condition import ANY_EVENT, Condition, Conditional

MAX_KNOWN_SUBJECTS: Final = 50_000
"""Maximum number of routes in the hub."""

MAX_CACHED_MATCHES: Final = 10_000
"""Maximum number of subjects in the cache of a filter, 300 KB; each client may have a filter of its own."""

RANK: Final = {name: rank for rank, name in enumerate(LEVELS)}
"""Rank of each level, rising with severity."""

_DEFAULT_RANK: Final = RANK["INFO"]


FilterKey = tuple[tuple[str, ...], str, tuple[str, ...], str]
"""Key of a filter: patterns, level, denied patterns, and the expression of its condition."""


class Routed(Conditional, Protocol):
    """Event to which filters apply."""

    route: "Route"


class Filter:
    """Filter by subject patterns, a minimum level and a condition.

    Args:
        subjects: valid patterns; at least one must match.
        level: minimum level; applies to subjects that name a level.
        deny: valid patterns; none may match, whatever the other rules say.
        where: condition that log events have to fulfil; None if all do.

    Attributes:
        key: key of the filter; clients whose filters have the same key share a feed.
        subject_key: the same without the condition, which states are not subject to.
    """

    __slots__ = ("_matches", "deny", "key", "level", "subject_key", "subjects", "where")

    def __init__(
        self,
        subjects: tuple[str, ...],
        level: str = "DEBUG",
        deny: tuple[str, ...] = (),
        where: Condition | None = None,
    ) -> None:
        self.subjects = subjects
        self.level = level
        self.deny = deny
        self.where = where
        # Sorted, since clients that list the same patterns in another order share a feed.
        self.subject_key = (tuple(sorted(subjects)), level, tuple(sorted(deny)))
        self.key: FilterKey = (*self.subject_key, ANY_EVENT if where is None else where.source)
        self._matches: dict[str, bool] = {}

    def __repr__(self) -> str:
        denied = f" except {','.join(self.deny)}" if self.deny else ""
        where = f" where {self.where.source}" if self.where is not None else ""
        return f"Filter({','.join(self.subjects)}{denied} >= {self.level}{where})"

    def accepts(self, event: Routed) -> bool:
        """Return whether the filter matches an event: its subject, and the condition if it is a log event."""
        return self.matches(event.route.subject) and (self.where is None or self.where.passes(event))

    def matches(self, subject: str) -> bool:
        """Return whether the filter matches a subject."""
        matched = self._matches.get(subject)
        if matched is None:
            if len(self._matches) >= MAX_CACHED_MATCHES:
                self._matches.clear()
            matched = self._matches[subject] = self.test(subject)
        return matched

    def covers(self, pattern: str) -> bool | None:
        """Return whether the filter matches all subjects of a pattern without levels; None if only some."""
        if not any(intersect(own, pattern) for own in self.subjects):
            return False
        if any(covers(own, pattern) for own in self.deny):
            return False
        denied = any(intersect(own, pattern) for own in self.deny)
        return True if not denied and any(covers(own, pattern) for own in self.subjects) else None

    def passes(self, route: "Route") -> bool:
        """Return whether level and ``deny`` allow a subject that one of the patterns is known to match."""
        return self._allows(route.subject, route.level)

    def test(self, subject: str) -> bool:
        """Return whether the filter matches a subject, without the cache."""
        return self._allows(subject, level_of(subject)) and any(
            matches(pattern, subject) for pattern in self.subjects
        )

    def _allows(self, subject: str, level: str | None) -> bool:
        if level is not None and RANK[level] < RANK[self.level]:
            return False
        return not any(matches(pattern, subject) for pattern in self.deny)


class Route:
    """Properties of one subject, computed once, and the feeds that it leads to.

    Attributes:
        subject: subject as clients see it.
        bucket: first two tokens of the subject, the key in ``by`` of a gap.
        group: third token of the subject, such as a component or the type of a gateway; empty without one.
        level: level that the subject names, or None.
        rank: rank of the level, or of INFO if the subject names no level.
        prefix: JSON of its events up to the sequence.
        feeds: feeds without a condition whose filter matches the subject, as of ``version`` of the feed
            index; only the fan-out reads and writes them.
        conditional: the feeds with one, by condition.
    """

    __slots__ = ("bucket", "conditional", "feeds", "group", "level", "prefix", "rank", "subject", "version")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        tokens = subject.split(".", 3)
        self.bucket = ".".join(tokens[:2])
        self.group = tokens[2] if len(tokens) > 2 else ""
        self.level = level_of(subject)
        self.rank = _DEFAULT_RANK if self.level is None else RANK[self.level]
        self.prefix = encode_event_prefix(subject)
        self.feeds: list[Any] = []
        self.conditional: dict[Condition, list[Any]] = {}
        self.version = -1

    def __repr__(self) -> str:
        return f"Route({self.subject!r}, {self.links} feeds)"

    @property
    def links(self) -> int:
        """Number of feeds."""
        return len(self.feeds) + sum(map(len, self.conditional.values()))
