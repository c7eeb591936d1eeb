"""Lines become events: a traceback, or whatever else goes on over lines, is one.

Invariants:

1. Every line that is not blank is in exactly one event, in order; blank lines are only kept within one.
2. An event ends exactly at the end of its last line; blank lines before an event lie between it and the last.
3. Events are the same however the lines were split into blocks.
4. An event has at most ``MAX_LINES`` lines and ``MAX_BYTES`` bytes; where it would have more, another begins.
5. A line that looks like a JSON object is an event of its own, at once.
"""

import re
from typing import Final

from tickertape.producers.shipper.redaction.patterns import is_in_key, opens_key
from tickertape.producers.shipper.user_regex import compile_pattern

MAX_LINES: Final = 1000
MAX_BYTES: Final = 64 * 1024

NEEDS_SANITIZING: Final = 1
"""Mark of a line that is not what it seems: it may hold a secret, or characters to take out."""
TRUNCATED: Final = 2
"""Mark of a line that was longer than the limit."""
IN_KEY: Final = 4
"""Mark of an event that begins within a private key."""

JoinedEvent = tuple[str, int, int]
"""Text of an event, the offset in the file after it, and its marks."""

# Where in a traceback an event is.
_OUTSIDE, _FRAMES, _ENDED, _CHAINED = range(4)

_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINS: Final = (
    "During handling of the above exception, another exception occurred",
    "The above exception was the direct cause of the following exception",
)
_LAST_LINE = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")
_JAVA = re.compile(r"(?:[a-z_][\w$]{0,99}\.){1,20}[A-Z][\w$]{0,99}(?:Exception|Error|Throwable)\b", re.ASCII)
_JAVA_FRAME = re.compile(r"at [\w.$/<>@-]{1,500}\(|\.\.\. \d{1,9} (?:more|common frames omitted)", re.ASCII)
_CLOSING = re.compile(r"[\])}]{1,20}[,;]?")
# What a line that goes on can begin with, outside of a traceback.
_MAY_CONTINUE: Final = frozenset(" \tTDCS.])}abcdefghijklmnopqrstuvwxyz_")


class MultilineJoiner:
    """Joins the lines of one file.

    Args:
        mode: "auto", "off", or an expression of RE2 that finds something in the first line of every event.
        json: lines that look like a JSON object are one.

    Raises:
        ValueError: the expression is not legal.
    """

    def __init__(self, mode: str, *, json: bool) -> None:
        self._json = json
        self._joins = mode != "off"
        self._pattern = (
            compile_pattern(mode, f"the start pattern {mode!r}") if mode not in ("auto", "off") else None
        )
        self._key_seen = False
        self._key_open = False
        self._drop()

    def _drop(self) -> None:
        self._held: list[str] = []
        self._end = 0
        self._mark = 0
        self._bytes = 0
        self._blank = 0
        self._state = _OUTSIDE

    @property
    def has_partial(self) -> bool:
        """True while an event is held that could go on."""
        return bool(self._held)

    def reset(self) -> None:
        """Forget what is held."""
        self._drop()
        # The lines that come again may be within a key whose beginning does not come again.
        self._key_open = self._key_seen

    def feed(
        self, texts: list[str], sizes: list[int], ends: list[int], line_flags: dict[int, int]
    ) -> list[JoinedEvent]:
        """Take lines; return the events that are complete.

        Args:
            texts: clean, without line breaks.
            sizes: bytes of each.
            ends: offsets in the file after each.
            line_flags: of those that have any.
        """
        done: list[JoinedEvent] = []
        held = self._held
        for index, text in enumerate(texts):
            if not text or text.isspace():
                self._blank += 1
                continue
            flags = line_flags.get(index, 0) if line_flags else 0
            first = text[0]
            if self._key_open:
                flags |= self._within_key(text)
            if held:
                if self._continues(text, first, flags):
                    size = sizes[index] + 1 + self._blank
                    if len(held) + self._blank < MAX_LINES and self._bytes + size <= MAX_BYTES:
                        if self._blank:
                            held.extend([""] * self._blank)
                            self._blank = 0
                        held.append(text)
                        self._bytes += size
                        self._end = ends[index]
                        self._mark |= flags & ~IN_KEY
                        if flags & NEEDS_SANITIZING and "PRIVATE KEY" in text:
                            self._open_key(text)
                        continue
                else:
                    self._state = _OUTSIDE
                done.append(("\n".join(held) if len(held) > 1 else held[0], self._end, self._mark))
                held.clear()
            self._blank = 0
            if self._json and self._looks_like_json(text, first):
                done.append((text, ends[index], flags))
                continue
            if flags & NEEDS_SANITIZING and "PRIVATE KEY" in text:
                self._open_key(text)
            if not self._joins:
                done.append((text, ends[index], flags))
                continue
            held.append(text)
            self._bytes = sizes[index]
            self._end = ends[index]
            self._mark = flags
            if self._state == _OUTSIDE and text.endswith(_TRACEBACK):
                self._state = _FRAMES
        return done

    def flush(self) -> list[JoinedEvent]:
        """Return the event that is held, if there is one."""
        if not self._held:
            return []
        event = ("\n".join(self._held), self._end, self._mark)
        self._drop()
        return [event]

    def _continues(self, text: str, first: str, flags: int) -> bool:
        """Tell whether a line belongs to the event that is held."""
        if flags & IN_KEY:
            return True
        if self._pattern is not None:
            return not (self._json and self._looks_like_json(text, first)) and not self._pattern.search(text)
        if self._state == _FRAMES:
            if first in " \t":
                return True
            found = _LAST_LINE.match(text)
            if found is not None and not found[1].isupper():
                self._state = _ENDED
                return True
        elif first not in _MAY_CONTINUE:
            return False
        return self._continues_text(text, first)

    def _continues_text(self, text: str, first: str) -> bool:
        if first in " \t":
            if self._json and self._looks_like_json(text, first):
                return False
            if text.endswith(_TRACEBACK) and self._state != _ENDED:
                self._state = _OUTSIDE if "+ Exception Group" in text else _FRAMES
            return True
        if first == "T" and text.startswith(_TRACEBACK):
            # Behind a traceback that ended another one begins, unless a line between them chains them.
            if self._state == _ENDED:
                return False
            self._state = _FRAMES
            return True
        if first in "TD" and text.startswith(_CHAINS):
            if self._state == _OUTSIDE and len(self._held) == 1:
                return False
            self._state = _CHAINED
            return True
        if text.startswith(("Caused by: ", "Suppressed: ")) or _JAVA_FRAME.match(text):
            return True
        if len(self._held) > 1:
            return _CLOSING.fullmatch(text) is not None
        return _JAVA.match(text) is not None and _JAVA.match(self._held[0]) is None

    def _looks_like_json(self, text: str, first: str) -> bool:
        if first == "{":
            return text.rstrip()[-1] == "}"
        # Within a traceback it is a line of a program.
        return (
            first in " \t" and self._state != _FRAMES and text.strip()[0] == "{" and text.rstrip()[-1] == "}"
        )

    def _open_key(self, text: str) -> None:
        if opens_key(text):
            self._key_open = self._key_seen = True

    def _within_key(self, text: str) -> int:
        """Marks of a line behind the beginning of a private key."""
        if not is_in_key(text):
            self._key_open = False
            return 0
        if "-----END " in text:
            self._key_open = False
        return IN_KEY | NEEDS_SANITIZING
