"""Times as nats-server writes them."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tickertape.nats.direct_get import parse_time_ns


@given(st.integers(0, 2**63 - 1))
def test_a_servers_time_is_read_to_the_nanosecond(stored_ns: int) -> None:
    """Times are parsed to the nanosecond; Go omits trailing zeros."""
    seconds, rest = divmod(stored_ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{rest:09}".rstrip(
        "0"
    ).rstrip(".")
    assert parse_time_ns(f"{text}Z") == stored_ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-01-01",
        "2026-13-01T00:00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.1234567890Z",
    ],
)
def test_an_invalid_time_is_none(text: str) -> None:
    """An invalid time is None."""
    assert parse_time_ns(text) is None


def test_an_offset_counts() -> None:
    """An offset is respected, although servers write UTC."""
    assert parse_time_ns("1970-01-01T02:00:00.000000001+02:00") == 1
