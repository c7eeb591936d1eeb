"""Splitting of chunks of bytes into lines."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.producers.shipper.parsing.line_splitter import LineSplitter, RawLine


def test_partial_lines_wait_for_their_line_break() -> None:
    """A partial line is returned once its line break arrives, with its offsets."""
    splitter = LineSplitter(100)
    assert splitter.feed(b"one\ntw") == [RawLine(0, 4, b"one", False)]
    assert splitter.has_partial
    assert splitter.feed(b"o\r\n") == [RawLine(4, 9, b"two", False)]
    assert not splitter.has_partial
    assert splitter.finish() == []


def test_the_last_line_needs_no_line_break() -> None:
    """The last line of a file needs no line break."""
    splitter = LineSplitter(100, offset=10)
    splitter.feed(b"rest")
    assert splitter.finish() == [RawLine(10, 14, b"rest", False)]
    assert splitter.finish() == []


def test_a_long_line_is_cut_and_not_split() -> None:
    """A line above the limit is cut, its rest is skipped, and the next line is complete."""
    splitter = LineSplitter(4)
    lines = [line for _ in range(3) for line in splitter.feed(b"abcdef")] + splitter.feed(b"\nnext\n")
    assert lines == [RawLine(0, 19, b"abcd", True), RawLine(19, 24, b"next", False)]


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30), st.integers(1, 30))
def test_lines_do_not_depend_on_chunks(data: bytes, sizes: list[int], limit: int) -> None:
    """The lines do not depend on the chunks, and every byte belongs to exactly one line."""
    unsplit = LineSplitter(limit)
    expected = unsplit.feed(data) + unsplit.finish()
    splitter = LineSplitter(limit)
    found: list[RawLine] = []
    offset = 0
    for size in [*sizes, len(data)]:
        found += splitter.feed(data[offset : offset + size])
        offset += size
    found += splitter.finish()
    assert found == expected
    ends = [0, *(line.end for line in found)]
    assert [line.start for line in found] == ends[:-1]
    assert ends[-1] == len(data)
