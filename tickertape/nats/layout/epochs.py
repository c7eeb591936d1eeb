"""Creation times of streams, which tell a stream from an earlier one of the same name."""

import re
from datetime import datetime
from typing import Any, Final

_SECOND: Final = 1_000_000_000
_FRACTION: Final = re.compile(r"\.(\d+)", re.ASCII)


def epoch_of(created: str) -> str:
    """Return the epoch of cursors: the stream's creation time in nanoseconds, as lower-case hex."""
    return f"{_creation_time_ns(created):x}"


def _creation_time_ns(created: str) -> int:
    # Go omits trailing zeros of the fraction, and datetime keeps only six digits.
    fraction = _FRACTION.search(created)
    seconds = int(datetime.fromisoformat(created).replace(microsecond=0).timestamp())
    return seconds * _SECOND + (int(fraction[1].ljust(9, "0")[:9]) if fraction else 0)


def is_older(stream: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether a stream was created before another one."""
    return _creation_time_ns(stream["created"]) < _creation_time_ns(other["created"])
