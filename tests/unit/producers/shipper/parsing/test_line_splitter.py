"""Bytes in pieces become lines."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.line_splitter import LineSplitter, RawLine


def test_half_lines_wait_for_their_rest() -> None:
    """A line comes when its break comes, with its place."""
    splitter = LineSplitter(100)
    assert splitter.feed(b"one\ntw") == [RawLine(0, 4, b"one", False)]
    assert splitter.has_partial
    assert splitter.feed(b"o\r\n") == [RawLine(4, 9, b"two", False)]
    assert not splitter.has_partial
    assert splitter.finish() == []


def test_the_end_makes_a_line_of_what_is_left() -> None:
    """The last line needs no break."""
    splitter = LineSplitter(100, offset=10)
    splitter.feed(b"rest")
    assert splitter.finish() == [RawLine(10, 14, b"rest", False)]
    assert splitter.finish() == []


def test_a_long_line_is_cut_and_not_split() -> None:
    """The rest of a long line is passed over, and the next line is whole."""
    splitter = LineSplitter(4)
    lines = [line for _ in range(3) for line in splitter.feed(b"abcdef")] + splitter.feed(b"\nnext\n")
    assert lines == [RawLine(0, 19, b"abcd", True), RawLine(19, 24, b"next", False)]


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30), st.integers(1, 30))
def test_pieces_do_not_matter(data: bytes, sizes: list[int], limit: int) -> None:
    """However the bytes are cut into pieces, the lines are the same, and every byte belongs to one."""
    whole = LineSplitter(limit)
    expected = whole.feed(data) + whole.finish()
    pieces = LineSplitter(limit)
    found: list[RawLine] = []
    at = 0
    for size in [*sizes, len(data)]:
        found += pieces.feed(data[at : at + size])
        at += size
    found += pieces.finish()
    assert found == expected
    ends = [0, *(line.end for line in found)]
    assert [line.start for line in found] == ends[:-1]
    assert ends[-1] == len(data)
