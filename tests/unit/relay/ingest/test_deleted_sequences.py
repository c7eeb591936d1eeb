"""What the stream deleted, worked out of what was seen."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from tickertape.relay.ingest.deleted_sequences import missing_ranges


@given(st.sets(st.integers(1, 30)), st.integers(1, 30), st.integers(0, 30))
def test_missing_is_what_was_not_seen(seen: set[int], first: int, last: int) -> None:
    """Each sequence in the range was seen, or lies in exactly one range; ranges do not touch."""
    found = missing_ranges(first, last, sorted(seen))
    inside = [seq for begin, end in found for seq in range(begin, end + 1)]
    assert inside == [seq for seq in range(first, last + 1) if seq not in seen]
    assert all(end + 1 < begin for (_, end), (begin, _) in pairwise(found))
