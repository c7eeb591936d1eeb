"""Decoder for the lines of one file, whose encoding is given or detected.

Invariants:

1. The encoding of a line depends on the lines of the file up to it and on nothing else: with the state that
   is saved with a position, a restart changes no text.
2. While the encoding is detected, a line that is valid UTF-8 is UTF-8, and decides nothing.
3. Any bytes are decoded, and the text has no lone surrogates; what is not valid becomes U+FFFD.
"""

import re
from bisect import bisect_right
from collections.abc import Callable, Container
from typing import Final

from tickertape.producers.shipper.encodings.detection import (
    CANDIDATES,
    Evidence,
    costs_of,
    encoding_of_line,
    exception_in,
    prefers_utf_8,
)
from tickertape.producers.shipper.encodings.names import (
    AUTO,
    LATIN_1,
    UTF_8,
    UTF_16,
    WIDE,
    decode_as,
    replace_as,
)

_STATE: Final = re.compile(rf"({'|'.join(CANDIDATES)})(?: (\d{{1,3}}((?:,\d{{1,9}}){{{len(CANDIDATES)}}})))?")


def check_state(state: str) -> None:
    """Check a state that comes from a checkpoint.

    Raises:
        ValueError: it is not one that a decoder saves.
    """
    if state and state not in WIDE and not _STATE.fullmatch(state):
        raise ValueError("the encoding in a file position is not one that is detected")


class TextDecoder:
    """Decoder for the lines of one file.

    Args:
        setting: canonical name of an encoding, or "auto".
        report: called with the name of a detected encoding.

    Attributes:
        wide: one of ``WIDE`` once the file is known to have it; its lines are then decoded as UTF-8, into
            which ``lines`` transcodes them. "" if it does not have it, None if that is not known yet.
        encoding: name of the current encoding.
        reads_utf_8: a line that is valid UTF-8 is UTF-8; lines of ASCII are the same in any encoding.
    """

    def __init__(self, setting: str = AUTO, report: Callable[[str], None] = lambda _: None) -> None:
        self.setting = setting
        self._report = report
        self._reported = ""
        self.wide: str | None = None
        self._restore("")
        # States after the lines that changed them, by their offsets.
        self._ends: list[int] = [0]
        self._states: list[str] = [""]

    def _restore(self, state: str) -> None:
        setting = self.setting
        self._evidence = Evidence()
        self._final = setting not in (AUTO, UTF_16, *WIDE)
        self.encoding = setting if self._final else UTF_8
        self.wide = setting if setting in WIDE else "" if self._final else None
        match = _STATE.fullmatch(state)
        if setting != AUTO or not state:
            pass
        elif match is None:
            self.wide = state
        else:
            self.encoding, self._final, self.wide = match[1], match[2] is None, ""
            if match[2] is not None:
                lines, *costs = map(int, match[2].split(","))
                self._evidence = Evidence(lines, tuple(costs))
        if self.wide:
            self.encoding = self.wide
        self._reported = self.encoding
        self._update()

    def _update(self) -> None:
        self.reads_utf_8 = bool(self.wide) or not self._final or self.encoding in (UTF_8, LATIN_1)
        if self._final and self.setting != AUTO:
            self.reads_utf_8 = self.encoding == UTF_8

    def set_wide(self, name: str) -> None:
        """Set whether the file has one of ``WIDE``, as its beginning shows."""
        self.wide = name
        if name:
            self.encoding = name
            self._update()
            if self.setting == AUTO:
                self._record(0, name)
                self._tell(name)

    def state_at(self, offset: int) -> str:
        """Return the state after the last line that ends at or before an offset."""
        return self._states[bisect_right(self._ends, offset) - 1]

    def restart(self, offset: int, state: str | None = None) -> None:
        """Continue after an offset, with a saved state or the one that this decoder had there."""
        state = self.state_at(offset) if state is None else state
        self._ends, self._states = [0], [state]
        self._restore(state)

    def decode_lines(
        self, lines: list[bytes], ends: list[int], truncated: Container[int] = ()
    ) -> tuple[list[str], bytes, list[int]]:
        """Decode lines.

        Args:
            lines: see ``decode``.
            ends: offset in the file after each line.
            truncated: indexes of truncated lines; false if there are none.

        Returns:
            The texts, one UTF-8 block of them separated by line breaks, and the indexes of those in which
            characters were replaced.
        """
        # Decoding one block costs a fraction of decoding each line.
        block = b"\n".join(lines)
        if not truncated and (self.reads_utf_8 or block.isascii()):
            try:
                texts = block.decode().split("\n")
            except UnicodeDecodeError:
                pass
            else:
                if len(texts) == len(lines):
                    return texts, block, []
        texts, replaced = [], []
        for index, line in enumerate(lines):
            text, valid = self.decode(line, ends[index], truncated=index in truncated)
            if not valid:
                replaced.append(index)
            # The block must have as many lines as there are texts, because matches are assigned to lines by
            # counting.
            texts.append(text.replace("\n", " "))
        return texts, "\n".join(texts).encode(), replaced

    def decode(self, line: bytes, end: int, *, truncated: bool = False) -> tuple[str, bool]:
        """Decode a line.

        Args:
            line: any bytes; those of UTF-8 if the file has one of ``WIDE``.
            end: offset in the file after the line.
            truncated: the line is truncated; an incomplete character at its end is dropped.

        Returns:
            The text, and whether no character was replaced.
        """
        if self.wide or (self._final and self.setting != AUTO):
            return _decode(line, UTF_8 if self.wide else self.encoding, truncated=truncated)
        if line.isascii():
            return line.decode(), True
        text = decode_as(line, UTF_8, truncated=truncated)
        if self._final:
            return self._decode_known(line, text, truncated=truncated)
        if text is not None:
            return text, True
        costs = costs_of(line, truncated=truncated)
        if costs is None:
            return replace_as(line, UTF_8), False
        self._add(costs, end)
        return _decode(line, encoding_of_line(costs, self.encoding), truncated=truncated)

    def _decode_known(self, line: bytes, utf_8: str | None, *, truncated: bool) -> tuple[str, bool]:
        """Decode a line of a file whose encoding was detected; see ``decode``."""
        name = self.encoding
        if name != LATIN_1:
            text = decode_as(line, name, truncated=truncated)
            if text is not None and (utf_8 is None or not prefers_utf_8(utf_8, text, name)):
                return text, True
        if utf_8 is not None:
            return utf_8, True
        return _decode(line, exception_in(line, name, truncated=truncated), truncated=truncated)

    def _add(self, costs: tuple[int, ...], end: int) -> None:
        self._evidence = evidence = self._evidence + costs
        self.encoding, self._final = evidence.best, evidence.is_conclusive
        state = self.encoding
        if not self._final:
            state += f" {','.join(map(str, (evidence.lines, *evidence.costs)))}"
        self._record(end, state)
        self._update()
        self._tell(self.encoding)

    def _record(self, end: int, state: str) -> None:
        self._ends.append(end)
        self._states.append(state)

    def _tell(self, name: str) -> None:
        if name != self._reported:
            self._reported = name
            self._report(name)


def _decode(line: bytes, name: str, *, truncated: bool) -> tuple[str, bool]:
    text = decode_as(line, name, truncated=truncated)
    return (text, True) if text is not None else (replace_as(line, name), False)


def decode_text(data: bytes) -> str:
    """Decode bytes on their own, in the most likely encoding, with U+FFFD for what is not text."""
    text, _ = TextDecoder().decode(data, 0)
    return text
