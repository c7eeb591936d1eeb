"""Losses: lines that were removed before they were read, with what is known about them."""

from collections.abc import Iterable
from typing import NamedTuple


class Loss(NamedTuple):
    """Loss of lines of a file.

    Attributes:
        text: line for the operator.
        size: bytes that are lost; 0 if their number is not known.
        is_certain: there are such lines.
    """

    text: str
    size: int
    is_certain: bool


class Losses:
    """Losses of one file stream."""

    def __init__(self) -> None:
        self._losses: list[Loss] = []
        # Paths and unread bytes of truncated generations, which may be in files that are not found yet.
        self._missing: list[tuple[str, int]] = []

    def report(self, text: str, lost_bytes: int = 0, *, is_certain: bool = True) -> None:
        """Report lines that are lost; ``lost_bytes`` is 0 if their number is not known."""
        self._losses.append(Loss(text, lost_bytes, is_certain))

    def add_missing(self, path: str, unread: Iterable[int]) -> None:
        """Record the unread bytes of generations that were truncated; copies of them may be found."""
        self._missing += [(path, size) for size in unread if size]

    def settle(self, found: Iterable[int]) -> None:
        """Report what is missing, except what can be in files that were found.

        Args:
            found: sizes of the files that were found since.
        """
        sizes = sorted(found)
        missing, self._missing = self._missing, []
        for path, unread in missing:
            copy = next((size for size in sizes if size >= unread), None)
            if copy is not None:
                sizes.remove(copy)
            else:
                self.report(f"{path}: truncated with {unread} bytes unread; their lines are lost", unread)

    def take(self) -> list[Loss]:
        """Return the losses that were not returned before."""
        losses, self._losses = self._losses, []
        return losses
