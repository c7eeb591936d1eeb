"""The limit of open files and sockets (RLIMIT_NOFILE) of this process."""

import contextlib
import resource
from typing import Final

MAX_DESCRIPTORS: Final = 1_048_576
"""Descriptors where the system names no limit: Linux lets no process have more unless told (fs.nr_open)."""


def descriptor_limits() -> tuple[int, int]:
    """Return how many descriptors this process has, and how many it may give itself."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _finite(soft), _finite(hard)


def raise_descriptor_limit(wanted: int = MAX_DESCRIPTORS) -> int:
    """Give this process more descriptors, as far as it may; return how many it has then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(wanted, _finite(hard))
    if _finite(soft) < wanted:
        with contextlib.suppress(ValueError, OSError):  # the system's own limit is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return descriptor_limits()[0]


def _finite(limit: int) -> int:
    return MAX_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit
