"""The descriptor limit of the system."""

import resource
from collections.abc import Iterator

import pytest

from tickertape.process.limits import MAX_DESCRIPTORS, descriptor_limits, raise_descriptor_limit


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
