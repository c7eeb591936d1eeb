"""Limits of this process: open files and sockets (RLIMIT_NOFILE), and memory.

The memory limit is that of its control group, as systemd (``MemoryMax``) and containers set it: a process
that exceeds it is killed without a word. Programs read it once, at their start.
"""

import contextlib
import os
import resource
from pathlib import Path
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


def memory_limit(proc: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> int:
    """Return how many bytes of memory this process may use: the lowest limit of its control groups.

    Without a limit, that is the memory of the machine.

    Args:
        proc: list of the control groups of this process.
        root: folder where the control groups are mounted.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for folder, name in _memory_groups(proc, root):
        with contextlib.suppress(OSError, ValueError):  # not mounted, or "max"
            limits.append(int((folder / name).read_text(encoding="ascii")))
    return min(limit for limit in limits if limit > 0)


def _memory_groups(proc: Path, root: Path) -> list[tuple[Path, str]]:
    """Return the folders of the control groups that limit this process, with the name of the limit's file."""
    try:
        lines = proc.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = ["0::/", "0:memory:/"]  # no /proc: a container mounts its own group at the root
    found: list[tuple[Path, str]] = []
    for line in lines:
        mounts: tuple[Path, ...]
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mounts, name = (root, root / "unified"), "memory.max"
        elif "memory" in controllers.split(","):
            mounts, name = (root / "memory",), "memory.limit_in_bytes"
        else:
            continue
        for mount in mounts:
            # A group is limited by those above it, too. In a container the path may be that of the host, and
            # does not exist there: the container's own group is at the root of the mount.
            folder = mount / path.strip("/")
            found += [(one, name) for one in (folder, *folder.parents) if one.is_relative_to(mount)]
    return found


def _finite(limit: int) -> int:
    return MAX_DESCRIPTORS if limit == resource.RLIM_INFINITY else limit
