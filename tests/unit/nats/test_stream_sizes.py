"""Parsing and formatting of stream sizes."""

import pytest

from tickertape.names import Names
from tickertape.nats.stream_sizes import DEFAULT_SIZES, format_size, parse_sizes
from tickertape.nats.streams import stream_configs
from tickertape.text import MIB


@pytest.mark.parametrize(
    ("text", "sizes"),
    [
        ("", {}),
        ("EVENTS=256MiB", {"EVENTS": 256 * MIB}),
        (" EVENTS = 256 mib , LATEST=1g,", {"EVENTS": 256 * MIB, "LATEST": 1024 * MIB}),
        ("REJECTED=1048576", {"REJECTED": MIB}),
        ("CHECKPOINTS=2MB,WATCHDOG=1024k", {"CHECKPOINTS": 2_000_000, "WATCHDOG": MIB}),
        ("EVENTS=2TiB", {"EVENTS": 2 * 1024**4}),
    ],
)
def test_sizes_are_read(text: str, sizes: dict[str, int]) -> None:
    """Binary and decimal units are accepted in any case; a bare number is bytes."""
    assert parse_sizes(text) == sizes


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("EVENTS", "names no stream"),
        ("EVENT=1GiB", "names no stream"),
        ("events=1GiB", "names no stream"),
        ("EVENTS=", "is not a valid size for EVENTS"),
        ("EVENTS=-1", "is not a valid size for EVENTS"),
        ("EVENTS=1.5GiB", "is not a valid size for EVENTS"),
        ("EVENTS=1XB", "is not a valid size for EVENTS"),
        ("EVENTS=\u0661MiB", "is not a valid size for EVENTS"),
        ("EVENTS=0", "is not between 1MiB"),
        ("EVENTS=1000KiB", "is not between 1MiB"),
        ("EVENTS=999999999999TiB", "is not between 1MiB"),
        ("EVENTS=1GiB,EVENTS=1GiB", "has two sizes"),
    ],
)
def test_other_sizes_are_rejected(text: str, why: str) -> None:
    """Other sizes are rejected with an example of a valid one."""
    with pytest.raises(ValueError, match=why):
        parse_sizes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (1536 * MIB, "1536MiB"),
        (1024 * MIB, "1GiB"),
        (50_000_000, "50000000"),
        (0, "0"),
        (-1, "-1"),
        (2048, "2KiB"),
    ],
)
def test_sizes_are_written(size: int, text: str) -> None:
    """Sizes are formatted exactly, in the largest possible unit."""
    assert format_size(size) == text


def test_a_deployment_has_its_sizes() -> None:
    """Streams that are not named keep the contract's size, with any prefix."""
    found = {one["name"]: one["max_bytes"] for one in stream_configs(Names("p", {"EVENTS": 5 * MIB}))}
    assert found == {
        f"{name}_p": 5 * MIB if name == "EVENTS" else size for name, size in DEFAULT_SIZES.items()
    }
    assert sum(DEFAULT_SIZES.values()) == 2048 * MIB
