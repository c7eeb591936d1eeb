"""Splitting of chunks of bytes into lines."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tickertape.cli.line_splitter import LineSplitter


def test_partial_lines_wait_for_their_line_break() -> None:
    """A partial line is returned once its line break arrives."""
    splitter = LineSplitter(100)
    assert splitter.feed(b"one\ntw") == [b"one"]
    assert splitter.feed(b"o\r\n") == [b"two"]
    assert splitter.finish() == []


def test_the_last_line_needs_no_line_break() -> None:
    """The last line of a stream needs no line break."""
    splitter = LineSplitter(100)
    splitter.feed(b"rest")
    assert splitter.finish() == [b"rest"]
    assert splitter.finish() == []


def test_a_long_line_is_cut_and_not_split() -> None:
    """A line above the limit is cut, its rest is skipped, and the next line is complete."""
    splitter = LineSplitter(4)
    lines = [line for _ in range(3) for line in splitter.feed(b"abcdef")] + splitter.feed(b"\nnext\n")
    assert lines == [b"abcd", b"next"]


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 20), max_size=30), st.integers(1, 30))
def test_lines_do_not_depend_on_chunks(data: bytes, sizes: list[int], limit: int) -> None:
    """The lines are those of the entire data, each cut at the limit, whatever the chunks are."""
    splitter = LineSplitter(limit)
    found: list[bytes] = []
    offset = 0
    for size in [*sizes, len(data)]:
        found += splitter.feed(data[offset : offset + size])
        offset += size
    found += splitter.finish()
    *complete, rest = data.split(b"\n")
    lines = [*complete, rest] if rest else complete
    assert found == [line[:limit].removesuffix(b"\r") for line in lines]
