"""Deleted sequences, derived from the sequences that were seen."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.ingest.deleted_sequences import missing_ranges


@given(st.sets(st.integers(1, 30)), st.integers(1, 30), st.integers(0, 30))
def test_missing_ranges_cover_the_unseen_sequences(seen: set[int], first: int, last: int) -> None:
    """Each sequence was either seen or lies in exactly one missing range, and ranges do not touch."""
    found = missing_ranges(first, last, sorted(seen))
    inside = [seq for begin, end in found for seq in range(begin, end + 1)]
    assert inside == [seq for seq in range(first, last + 1) if seq not in seen]
    assert all(end + 1 < begin for (_, end), (begin, _) in pairwise(found))
