"""The buffers of a relay fit into the memory that it may use."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.memory_budget import MAX_LOG_BYTES, make_budget

from tickertape.text import MIB

GIB = 1024 * MIB


@given(st.integers(128 * MIB, 64 * GIB), st.integers(1, 64))
def test_the_defaults_fit_into_the_limit(limit: int, workers: int) -> None:
    """Where each process has enough memory to run, their buffers take at most a quarter."""
    budget = make_budget(limit * workers, workers=workers)
    assert budget.problem() is None
    assert budget.log_bytes + budget.replay_bytes + budget.page_bytes <= limit // 4
    assert budget.log_bytes <= MAX_LOG_BYTES


@pytest.mark.parametrize("limit", [GIB, 2 * GIB, 24 * GIB])
def test_with_a_gibibyte_the_sizes_are_those_of_the_documentation(limit: int) -> None:
    """Memory is divided only where it is scarce."""
    budget = make_budget(limit)
    assert (budget.log_bytes, budget.replay_bytes, budget.page_bytes) == (128 * MIB, 64 * MIB, 64 * MIB)


@pytest.mark.parametrize(
    ("limit", "log_bytes", "workers", "expected"),
    [
        (
            256 * MIB,
            128 * MIB,
            1,
            "--log-bytes of 128 MiB is too much for the memory limit of 256 MiB",
        ),
        (GIB, 128 * MIB, 4, "--log-bytes of 128 MiB is too much for the memory limit of 256 MiB"),
        (
            256 * MIB,
            0,
            4,
            "the memory limit of 256 MiB is 64 MiB per process",
        ),
    ],
)
def test_a_limit_that_is_too_low_is_reported_with_numbers(
    limit: int, log_bytes: int, workers: int, expected: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says what is too large, and for how much memory."""
    with caplog.at_level(logging.WARNING):
        make_budget(limit, log_bytes, workers).report()
    assert [expected in record.getMessage() for record in caplog.records] == [True]


def test_a_configured_size_is_used(caplog: pytest.LogCaptureFixture) -> None:
    """An operator's choice is not changed, and is no reason for a warning where it fits."""
    with caplog.at_level(logging.WARNING):
        budget = make_budget(GIB, 200 * MIB)
        budget.report()
    assert budget.log_bytes == 200 * MIB
    assert caplog.records == []
