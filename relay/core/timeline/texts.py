"""Table of texts, each of which is stored once."""

import sys
from collections.abc import Iterable
from typing import Final

MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
"""Maximum bytes of all texts in a table."""


class Texts:
    """Numbered texts; number 0 is the empty text.

    Args:
        max_bytes: bytes beyond which the table is full.

    Attributes:
        bytes: bytes of all texts.
    """

    def __init__(self, max_bytes: int = MAX_TEXT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._texts = [""]
        self._numbers = {"": 0}
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, number: int) -> str:
        return self._texts[number]

    @property
    def is_full(self) -> bool:
        """Whether ``keep`` has to make room for further texts."""
        return self.bytes > self._max_bytes

    def number(self, text: str) -> int:
        """Return the number of a text, which is added if it is new."""
        number = self._numbers.get(text)
        if number is None:
            number = self._numbers[text] = len(self._texts)
            self._texts.append(text)
            self.bytes += sys.getsizeof(text)
        return number

    def keep(self, numbers: Iterable[int]) -> dict[int, int]:
        """Keep the first of the given texts, up to half of the bytes, and forget the others.

        Args:
            numbers: numbers of texts, the most important ones first.

        Returns:
            The new number of each text that is kept.
        """
        kept, renumbered = Texts(self._max_bytes), {0: 0}
        for number in numbers:
            if kept.bytes > self._max_bytes // 2:
                break
            renumbered[number] = kept.number(self._texts[number])
        self._texts, self._numbers, self.bytes = kept._texts, kept._numbers, kept.bytes
        return renumbered
