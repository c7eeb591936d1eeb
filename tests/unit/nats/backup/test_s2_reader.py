"""The reader decompresses what an S2 encoder can write, and rejects everything else with one exception."""

import io
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.s2_frames import IDENTIFIER, compressed, copy, literal, repeat, uncompressed, varint
from tickertape.nats.backup.s2_reader import MAX_BLOCK, ArchiveError, S2Reader, decompress_block

OPERATIONS = st.lists(
    st.one_of(
        st.binary(min_size=1, max_size=300),
        st.tuples(st.integers(1, 70_000), st.integers(1, 64)),
        st.sampled_from([4, 8, 9, 259, 260, 300, 65_795, 65_796, 70_000]),
    ),
    min_size=1,
    max_size=12,
)


def encode(operations: list[bytes | tuple[int, int] | int]) -> tuple[bytes, bytes]:
    """Encode operations; return the block, and what it decompresses to."""
    block, content, last = b"", bytearray(), 0
    for operation in operations:
        if isinstance(operation, bytes):
            block += literal(operation)
            content += operation
            continue
        if isinstance(operation, tuple):
            offset, size = min(operation[0], len(content)), operation[1]
            last = offset or last
        else:
            offset, size = 0, operation
        if not last or not content:
            continue
        block += copy(offset, size) if offset else repeat(size)
        pattern = bytes(content[-last:])
        content += (pattern * (size // last + 1))[:size]
    return varint(len(content)) + block, bytes(content)


@given(OPERATIONS)
def test_every_operation_of_the_format_is_decompressed(
    operations: list[bytes | tuple[int, int] | int],
) -> None:
    """Literals, copies of each kind, and repeats of each size decompress to what they describe."""
    block, content = encode(operations)
    assert decompress_block(block) == content


@given(st.lists(st.tuples(st.booleans(), st.binary(min_size=1, max_size=3000)), max_size=6), st.randoms())
def test_reading_and_skipping_move_alike(chunks: list[tuple[bool, bytes]], chance: random.Random) -> None:
    """Whatever is read or skipped, the position in the content is that of both."""
    framed = IDENTIFIER
    content = b""
    for small, data in chunks:
        framed += compressed(varint(len(data)) + literal(data)) if small else uncompressed(data)
        content += data
    reader = S2Reader(io.BytesIO(framed).read)
    position = 0
    while position < len(content):
        count = chance.randint(1, 1000)
        if chance.random() < 0.5:
            assert reader.read(count) == content[position : position + count]
        else:
            assert reader.skip(count) == len(content[position : position + count])
        position += count
    assert reader.read(1) == b""
    assert reader.skip(1) == 0


@pytest.mark.parametrize(
    ("framed", "problem"),
    [
        (IDENTIFIER[:-1], "truncated"),
        (IDENTIFIER + b"\x01", "truncated"),
        (IDENTIFIER + uncompressed(b"data")[:-1], "truncated"),
        (b"\xff\x06\x00\x00nonono", "not in the S2 format"),
        (b"\x02\x04\x00\x000000", "unknown type 2"),
        (b"\x00\x04\x00\x000000", "too short"),
        (b"\x00\xff\xff\xff", "too large"),
        (compressed(varint(MAX_BLOCK + 1) + literal(b"x")), "too large"),
        (compressed(varint(5) + literal(b"x")), "truncated"),
        (compressed(varint(1) + literal(b"xyz")), "longer than it says"),
        (compressed(varint(9) + literal(b"x") + repeat(70_000)), "longer than it says"),
        (compressed(varint(9) + literal(b"x") + copy(2, 4)), "before its beginning"),
        (compressed(varint(9) + repeat(8)), "before its beginning"),
        (compressed(varint(9) + literal(b"12345")[:-1]), "truncated"),
        (compressed(b"\xff" * 11), "invalid number"),
        (compressed(b"\xff"), "truncated"),
    ],
)
def test_malformed_input_is_named(framed: bytes, problem: str) -> None:
    """Each kind of damage raises the reader's exception, with what is wrong."""
    with pytest.raises(ArchiveError, match=problem):
        S2Reader(io.BytesIO(framed).read).read(100_000)


@given(st.binary(max_size=200))
def test_no_input_raises_anything_else(data: bytes) -> None:
    """Any bytes are content, or raise ``ArchiveError``."""
    for framed in (data, IDENTIFIER + data, compressed(data + b"x")):
        reader = S2Reader(io.BytesIO(framed).read)
        try:
            while reader.read(1000):
                pass
        except ArchiveError:
            pass


def test_skippable_chunks_are_skipped() -> None:
    """Padding between chunks, which the format allows, has no content."""
    framed = IDENTIFIER + b"\xfe\x03\x00\x00pad" + uncompressed(b"one") + IDENTIFIER + uncompressed(b"two")
    assert S2Reader(io.BytesIO(framed).read).read(10) == b"onetwo"
