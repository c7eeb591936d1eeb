"""Comparison of a content, as it passes, with the bytes by which others are recognized."""

from collections.abc import Sequence
from dataclasses import dataclass

from tickertape.producers.shipper.position import PRECEDING_BYTES, digest


@dataclass(frozen=True, slots=True)
class Evidence:
    """Bytes by which a content is recognized.

    Attributes:
        head: hash of the first ``head_bytes`` bytes.
        head_bytes: number of bytes at the beginning that are compared.
        before: hash of the up to ``PRECEDING_BYTES`` bytes before ``offset``.
        offset: number of bytes that the content has at least.
    """

    head: str
    head_bytes: int
    before: str
    offset: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of a comparison.

    Attributes:
        matched: first evidence that the content has; None if it has none.
        size: bytes of the content, as far as it was read.
    """

    matched: Evidence | None
    size: int


class Comparer:
    """Comparison with evidence, as the content passes."""

    def __init__(self, evidence: Sequence[Evidence]) -> None:
        self._evidence = evidence
        self._head_bytes = max((one.head_bytes for one in evidence), default=0)
        self._head = b""
        self._tail = b""
        # Hashes before offsets that have passed.
        self._before: dict[int, str] = {0: digest(b"")}
        self._left: list[int] | None = None

    @property
    def is_decided(self) -> bool:
        """Whether the head has excluded all evidence."""
        return self._left == []

    def _matches(self) -> list[Evidence]:
        return [one for one in self._evidence if digest(self._head[: one.head_bytes]) == one.head]

    def write(self, block: bytes, position: int) -> None:
        """Compare a block."""
        if len(self._head) < self._head_bytes:
            self._head += block[: self._head_bytes - len(self._head)]
            if len(self._head) >= self._head_bytes:
                self._left = sorted({one.offset for one in self._matches()})
        window, start = self._tail + block, position - len(self._tail)
        offsets = self._left if self._left is not None else [one.offset for one in self._evidence]
        for offset in offsets:
            if position < offset <= position + len(block):
                end = offset - start
                self._before[offset] = digest(window[max(0, end - PRECEDING_BYTES) : end])
        self._tail = window[-PRECEDING_BYTES:]

    def result(self, size: int) -> Comparison:
        """Return which evidence the content has."""
        for one in self._matches():
            if size >= one.offset and self._before.get(one.offset) == one.before:
                return Comparison(one, size)
        return Comparison(None, size)

    def close(self) -> None:
        """Release nothing."""
