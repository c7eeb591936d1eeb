"""The limits of the system on descriptors and memory."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from tickertape.process.limits import MAX_DESCRIPTORS, descriptor_limits, memory_limit, raise_descriptor_limit
from tickertape.text import MIB


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_raised_as_requested_and_permitted() -> None:
    """The limit is raised as far as requested and permitted, and never lowered."""
    hard = descriptor_limits()[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
    assert descriptor_limits() == (200, hard)
    assert raise_descriptor_limit(100) == 200
    assert raise_descriptor_limit(300) == 300
    assert raise_descriptor_limit() == min(hard, MAX_DESCRIPTORS)


def test_no_limit_is_a_number_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the system permits less than the current limit, nothing changes."""
    limits = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert descriptor_limits() == (MAX_DESCRIPTORS, MAX_DESCRIPTORS)
    assert raise_descriptor_limit(100) == MAX_DESCRIPTORS
    limits = (1_024, resource.RLIM_INFINITY)

    def expect_rejection(*_: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", expect_rejection)
    assert raise_descriptor_limit() == 1_024
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/a/b\n", {"a/b/memory.max": "max\n", "a/memory.max": f"{300 * MIB}\n"}, 300),
        ("0::/a/b\n", {"a/b/memory.max": f"{256 * MIB}\n", "a/memory.max": f"{300 * MIB}\n"}, 256),
        ("0::/\n", {"memory.max": f"{256 * MIB}\n"}, 256),
        ("4:memory:/docker/1\n0::/\n", {"memory/docker/1/memory.limit_in_bytes": f"{256 * MIB}\n"}, 256),
        ("4:cpu,memory:/x\n", {"memory/memory.limit_in_bytes": f"{256 * MIB}\n"}, 256),
        ("4:memory:/\n", {"memory/memory.limit_in_bytes": "9223372036854771712\n"}, None),
        ("0::/../x\n", {"memory.max": f"{256 * MIB}\n"}, 256),
        ("0::/a\n", {"unified/a/memory.max": f"{256 * MIB}\n"}, 256),
        ("0::/a\n", {}, None),
        (None, {"memory.max": f"{256 * MIB}\n"}, 256),
        (None, {"memory/memory.limit_in_bytes": f"{256 * MIB}\n"}, 256),
    ],
)  # fmt: skip
def test_the_lowest_limit_of_the_control_groups_counts(
    groups: str | None, files: dict[str, str], expected: int | None, tmp_path: Path
) -> None:
    """Version 1 and 2, in a container and outside; without a limit it is the memory of the machine."""
    proc, root = tmp_path / "cgroup", tmp_path / "fs"
    if groups is not None:
        proc.write_text(groups)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert memory_limit(proc, root) == (machine if expected is None else expected * MIB)
