"""Writer of S2 streams and blocks, operation by operation, for tests of the reader."""

IDENTIFIER = b"\xff\x06\x00\x00S2sTwO"
_CHECKSUM = bytes(4)


def varint(value: int) -> bytes:
    """Return an unsigned integer of variable length."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def uncompressed(data: bytes) -> bytes:
    """Return a chunk with data as it is; its checksum is 0, which the reader does not check."""
    return b"\x01" + (len(data) + 4).to_bytes(3, "little") + _CHECKSUM + data


def compressed(block: bytes) -> bytes:
    """Return a chunk with a compressed block."""
    return b"\x00" + (len(block) + 4).to_bytes(3, "little") + _CHECKSUM + block


def framed(content: bytes) -> bytes:
    """Return a stream whose content is not compressed."""
    size = 64 * 1024
    return IDENTIFIER + b"".join(
        uncompressed(content[start : start + size]) for start in range(0, len(content), size)
    )


def literal(data: bytes) -> bytes:
    """Return an operation that appends data."""
    size = len(data) - 1
    if size < 60:
        return bytes([size << 2]) + data
    extra = (size.bit_length() + 7) // 8
    return bytes([(59 + extra) << 2]) + size.to_bytes(extra, "little") + data


def copy(offset: int, size: int) -> bytes:
    """Return an operation that repeats 1 to 64 bytes from an offset before the end."""
    if offset < 2048 and 4 <= size <= 8:
        return bytes([offset >> 8 << 5 | (size - 4) << 2 | 1, offset & 0xFF])
    if offset < 65_536:
        return bytes([(size - 1) << 2 | 2]) + offset.to_bytes(2, "little")
    return bytes([(size - 1) << 2 | 3]) + offset.to_bytes(4, "little")


def repeat(size: int) -> bytes:
    """Return an operation that copies 4 bytes or more from the offset of the last copy."""
    if size <= 8:
        return bytes([(size - 4) << 2 | 1, 0])
    for code, base, width in ((5, 8, 1), (6, 260, 2), (7, 65_540, 3)):
        if size - base < 256**width:
            return bytes([code << 2 | 1, 0]) + (size - base).to_bytes(width, "little")
    raise ValueError(f"{size} bytes cannot be repeated by one operation")


__all__ = ["IDENTIFIER", "compressed", "copy", "framed", "literal", "repeat", "uncompressed", "varint"]
