"""Durations as people write them: a number with a unit, as in 500ms, 1.5h or 7d."""

import re
from typing import Final

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

# Nine digits at most: a number of any length would overflow a float, or take long to read.
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)


def is_duration(text: str) -> bool:
    """Tell whether a text is a duration, where it may also be a moment."""
    return _DURATION.fullmatch(text) is not None


def parse_duration(text: object) -> float:
    """Read a duration into seconds.

    Args:
        text: anything that stands where a duration is expected.

    Raises:
        ValueError: it is not a duration.
    """
    found = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        shown = repr(text)[:40]
        raise ValueError(f"{shown} is not a duration; write a number with a unit (ms s m h d), as in 5s")
    return float(found[1]) * _UNIT_SECONDS[found[2]]
