"""Sequences as ranges."""

import pytest

from relay.vanished import Range, ranges


@pytest.mark.parametrize(
    ("sequences", "found"),
    [([], []), ([3], [(3, 3)]), ([3, 4, 5], [(3, 5)]), ([9, 3, 4, 7], [(3, 4), (7, 7), (9, 9)])],
)
def test_neighbours_are_one_range(sequences: list[int], found: list[Range]) -> None:
    """In order, whatever the order was."""
    assert ranges(sequences) == found
