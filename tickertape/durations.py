"""Human-readable durations: a number with a unit, such as 500ms, 1.5h or 7d."""

import re
from typing import Final

_UNIT_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}

# At most nine digits: a longer number could overflow a float or be slow to parse.
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|s|m|h|d)", re.ASCII)


def is_duration(text: str) -> bool:
    """Return whether a text is a duration, for options that also accept a point in time."""
    return _DURATION.fullmatch(text) is not None


def parse_duration(text: object) -> float:
    """Parse a duration into seconds.

    Args:
        text: any value from a file, an option or an environment variable.

    Raises:
        ValueError: the value is not a duration.
    """
    match = _DURATION.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        excerpt = repr(text)[:40] if isinstance(text, str | int | float) else "a list or a mapping"
        raise ValueError(
            f"{excerpt} is not a duration; use a number with a unit (ms, s, m, h or d), such as 5s"
        )
    return float(match[1]) * _UNIT_SECONDS[match[2]]
