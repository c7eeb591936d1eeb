"""Which events a client wants: patterns and a least level, decided once per subject.

Invariants:

1. A filter's answer depends on the subject alone, so it is asked once per subject and kept.
2. What is kept is bounded; passing the bound forgets, and costs only time.
"""

from typing import Any, Final

from tickertape.contracts.encode import encode_event_prefix
from tickertape.contracts.subjects import LEVELS, level_of, matches

MAX_KNOWN_SUBJECTS: Final = 50_000
"""Subjects whose answer one filter, or whose route the hub, remembers."""

RANK: Final = {name: rank for rank, name in enumerate(LEVELS)}
_DEFAULT_RANK: Final = RANK["INFO"]


class Filter:
    """Patterns and a least level.

    Args:
        subjects: legal patterns; an event is wanted when one matches.
        level: least level; it applies to subjects that name a level.
        deny: legal patterns; an event is not wanted when one matches, whatever the others say.
    """

    __slots__ = ("_answers", "deny", "key", "level", "subjects")

    def __init__(self, subjects: tuple[str, ...], level: str = "DEBUG", deny: tuple[str, ...] = ()) -> None:
        self.subjects = subjects
        self.level = level
        self.deny = deny
        self.key = (tuple(sorted(subjects)), level, tuple(sorted(deny)))
        self._answers: dict[str, bool] = {}

    def __repr__(self) -> str:
        but = f" but {','.join(self.deny)}" if self.deny else ""
        return f"Filter({','.join(self.subjects)}{but} >= {self.level})"

    def matches(self, subject: str) -> bool:
        """Tell whether events of a subject are wanted."""
        answer = self._answers.get(subject)
        if answer is None:
            if len(self._answers) >= MAX_KNOWN_SUBJECTS:
                self._answers.clear()
            answer = self._answers[subject] = self._decide(subject)
        return answer

    def passes(self, route: "Route") -> bool:
        """Tell whether level and ``deny`` let a subject pass that one of the patterns matches."""
        return self._allows(route.subject, route.level)

    def _decide(self, subject: str) -> bool:
        return self._allows(subject, level_of(subject)) and any(
            matches(pattern, subject) for pattern in self.subjects
        )

    def _allows(self, subject: str, level: str | None) -> bool:
        if level is not None and RANK[level] < RANK[self.level]:
            return False
        return not any(matches(pattern, subject) for pattern in self.deny)


class Route:
    """What one subject means to the hub; made once per subject.

    Attributes:
        subject: as clients see it.
        bucket: its first two tokens, the key in a gap's ``by``.
        level: that it names, or None.
        rank: its level's rank; INFO's when it names none.
        prefix: the JSON of its events up to their sequence.
        feeds: the fan-out's own, which alone reads and writes it: feeds whose filter matches the subject.
    """

    __slots__ = ("bucket", "feeds", "level", "prefix", "rank", "subject")

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.bucket = ".".join(subject.split(".", 2)[:2])
        self.level = level_of(subject)
        self.rank = _DEFAULT_RANK if self.level is None else RANK[self.level]
        self.prefix = encode_event_prefix(subject)
        self.feeds: dict[Any, None] = {}

    def __repr__(self) -> str:
        return f"Route({self.subject!r}, {len(self.feeds)} feeds)"
