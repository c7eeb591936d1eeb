"""Splitting of a file's chunks into lines, in whatever encoding the file turns out to have."""

from tickertape.producers.shipper.encodings.names import UTF_16, UTF_16_LE
from tickertape.producers.shipper.encodings.text_decoder import TextDecoder
from tickertape.producers.shipper.lines.line_buffer import LineBuffer
from tickertape.producers.shipper.lines.utf16_lines import Utf16Lines, find_utf16


class EncodedLines:
    """Buffer for the line whose line break has not been read yet, and for a beginning that is undecided.

    Args:
        decoder: decoder of the file's lines; what its beginning shows is set there.
    """

    def __init__(self, decoder: TextDecoder) -> None:
        self._decoder = decoder
        self._lines: LineBuffer | None = None
        self._held = b""
        self._start = 0
        """Offset of the held bytes."""

    def __bool__(self) -> bool:
        return bool(self._lines if self._lines is not None else self._held)

    def restart(self, offset: int, head: bytes, state: str | None) -> None:
        """Discard the buffered bytes, and continue after an offset.

        Args:
            offset: offset in the file at which the next chunk starts.
            head: the beginning of the file, not beyond the offset.
            state: saved state of the decoder; None for the one that it had at the offset.
        """
        self._decoder.restart(offset, state)
        self._lines, self._held = None, b""
        decoder = self._decoder
        if decoder.wide is None and offset:
            text = head.lstrip(b"\0")
            self._decide(head[(len(head) - len(text)) & ~1 :], final=True)
        if decoder.wide is not None:
            self._open(offset)

    def split(self, data: bytes, start: int) -> tuple[list[bytes], list[int], frozenset[int]]:
        """Add a chunk and return the lines that it completes; see ``LineBuffer.split``."""
        if self._lines is not None:
            return self._lines.split(data, start)
        if not self._held:
            # Null bytes before the text were never written.
            text = data.lstrip(b"\0")
            self._start = start + len(data) - len(text)
            if text and self._start % 2:
                text, self._start = b"\0" + text, self._start - 1
            data = text
        self._held += data
        if not self._held or not self._decide(self._held, final=False):
            return [], [], frozenset()
        lines, held, self._held = self._open(self._start), self._held, b""
        return lines.split(held, self._start)

    def take(self) -> tuple[bytes, frozenset[int]]:
        """Remove and return the buffered bytes as a line; see ``LineBuffer.take``."""
        if self._lines is None:
            self._decide(self._held, final=True)
            lines, held, self._held = self._open(self._start), self._held, b""
            if held:
                lines.split(held, self._start)  # completes none, as a line break would have decided
            return lines.take()
        return self._lines.take()

    def _decide(self, head: bytes, *, final: bool) -> bool:
        """Set what the beginning of a file shows; return whether that is known."""
        found = find_utf16(head, final=final)
        if found is None:
            return False
        # A given encoding is not in doubt, only its byte order is; that of Windows is the usual one.
        self._decoder.set_wide(found or (UTF_16_LE if self._decoder.setting == UTF_16 else ""))
        return True

    def _open(self, offset: int) -> LineBuffer:
        wide = self._decoder.wide
        self._lines = Utf16Lines(wide, offset) if wide else LineBuffer()
        return self._lines
