"""Lines of a file, however its bytes are split into chunks."""

from hypothesis import example, given
from hypothesis import strategies as st
from tickertape.producers.shipper.lines.line_buffer import HOLE_BYTES, LineBuffer
from tickertape.producers.shipper.parsing.parser import MAX_LINE_BYTES

PIECES = st.sampled_from([b"a", b"bc", b"\n", b"\r", b"\r\n", *(bytes(n) for n in (1, 7, 15, 16, 17, 40))])


def split(chunks: list[bytes]) -> list[tuple[bytes, int, bool]]:
    """Return the lines, the offset after each, and whether it was truncated."""
    buffer, offset, found = LineBuffer(), 0, list[tuple[bytes, int, bool]]()
    for chunk in filter(None, chunks):
        lines, ends, truncated = buffer.split(chunk, offset)
        offset += len(chunk)
        found += [
            (line, end, index in truncated) for index, (line, end) in enumerate(zip(lines, ends, strict=True))
        ]
    if buffer:
        line, truncated = buffer.take()
        found.append((line, offset, 0 in truncated))
    return found


@given(st.lists(PIECES, max_size=30).map(b"".join), st.lists(st.integers(1, 50), min_size=1, max_size=5))
@example(b"a" + bytes(HOLE_BYTES) + b"b\n", [HOLE_BYTES // 2])
@example(b"a\r" + bytes(2) + b"\n", [2])
def test_lines_do_not_depend_on_the_chunks(data: bytes, sizes: list[int]) -> None:
    """Lines and their offsets, from which a shipper continues, are the same for all chunks."""
    chunks, start, number = list[bytes](), 0, 0
    while start < len(data):
        size = sizes[number % len(sizes)]
        chunks.append(data[start : start + size])
        start, number = start + size, number + 1
    assert split(chunks) == split([data])


def test_a_hole_that_begins_in_one_chunk_and_ends_in_another_ends_a_line() -> None:
    """The offset after the line is where the hole begins; fewer null bytes stay within a line."""
    start, hole = b"before" + bytes(HOLE_BYTES - 1), bytes(100) + b"after\n"
    assert split([start, hole]) == [(b"before", 7, False), (b"after", len(start + hole), False)]
    assert split([start, b"\0", b"after\n"]) == [(b"before", 7, False), (b"after", 28, False)]
    assert split([start, b"after\n"]) == [(start + b"after", 27, False)]


def test_null_bytes_after_a_line_do_not_truncate_it() -> None:
    """Only the bytes of the line count."""
    line = b"x" * MAX_LINE_BYTES
    assert split([line, bytes(4), b"\n"]) == [(line, len(line) + 5, False)]
    assert split([line, bytes(4), b"x\n"]) == [(line, len(line) + 6, True)]
