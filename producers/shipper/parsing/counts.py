"""Counters of a parser, for metrics and summaries."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class ParserCounts:
    """Counters shared by the parsers of a process.

    Attributes:
        lines: lines that were read.
        invalid: lines that are not valid text, in which characters were replaced.
        truncated: lines longer than the limit.
        below_level: records of requests below the minimum level; those of files count in their streams.
        suppressed: records of requests above a rate limit.
        redacted: redacted secrets by kind.
    """

    lines: int = 0
    invalid: int = 0
    truncated: int = 0
    below_level: int = 0
    suppressed: int = 0
    redacted: Counter[str] = field(default_factory=Counter)
