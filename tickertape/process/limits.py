"""Limit on open files and sockets (RLIMIT_NOFILE) of this process."""

import contextlib
import resource
from typing import Final

MAX_DESCRIPTORS: Final = 1_048_576
"""Descriptors assumed where the limit is infinite: the default of ``fs.nr_open``, the maximum on Linux."""


def descriptor_limits() -> tuple[int, int]:
    """Return the soft and the hard descriptor limit of this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _finite(soft), _finite(hard)


def raise_descriptor_limit(target: int = MAX_DESCRIPTORS) -> int:
    """Raise the soft descriptor limit as far as the hard limit allows; return the new soft limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    target = min(target, _finite(hard))
    if _finite(soft) < target:
        with contextlib.suppress(ValueError, OSError):  # the kernel's own limit is lower
            resource.setrlimit(resource.RLIMIT_NOFILE, (target, hard))
    return descriptor_limits()[0]


def _finite(limit: int) -> int:
    return MAX_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit
