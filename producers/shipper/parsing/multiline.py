"""Joining of lines into events: a traceback, or any other text that spans lines, is one event.

Invariants:

1. Every line that is not blank is in exactly one event, in order; blank lines are kept only within an event.
2. An event ends exactly at the end of its last line; blank lines between two events belong to neither.
3. Events do not depend on how the lines are split into blocks.
4. An event has at most ``MAX_LINES`` lines and ``MAX_BYTES`` bytes; a longer one is split.
5. A line that looks like a JSON object is a separate event, and is returned immediately.
"""

import re
from itertools import repeat
from typing import Final

from tickertape.producers.shipper.parsing.event_starts import all_begin_events, may_continue
from tickertape.producers.shipper.redaction.private_keys import is_in_key, opens_key

from tickertape.user_regex import compile_pattern

MAX_LINES: Final = 1000
"""Lines of an event."""

MAX_BYTES: Final = 64 * 1024
"""Bytes of an event."""

NEEDS_SANITIZING: Final = 1
"""Flag of a line that may contain a secret, or characters that must be removed."""

TRUNCATED: Final = 2
"""Flag of a line that was longer than the limit."""

IN_KEY: Final = 4
"""Flag of an event that begins within a private key."""

REPLACED: Final = 8
"""Flag of a line with characters that were replaced, because its bytes are not text."""

JoinedEvent = tuple[str, int, int]
"""Text of an event, the offset in the file after it, and its flags."""

# Position of the most recent line relative to a traceback.
_OUTSIDE, _FRAMES, _ENDED, _CHAINED, _TRACE = range(5)

_TRACEBACK: Final = "Traceback (most recent call last):"
_CHAINS: Final = (
    "During handling of the above exception, another exception occurred",
    "The above exception was the direct cause of the following exception",
)
_LAST_LINE = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")
_JAVA = re.compile(r"(?:[a-z_][\w$]{0,99}\.){1,20}[A-Z][\w$]{0,99}(?:Exception|Error|Throwable)\b", re.ASCII)
_JAVA_FRAME = re.compile(r"at [\w.$/<>@-]{1,500}\(|\.\.\. \d{1,9} (?:more|common frames omitted)", re.ASCII)
_DOTNET = re.compile(r"(?:[A-Z]\w{0,99}\.){1,20}\w{0,99}Exception\b", re.ASCII)
_OPEN_ELEMENT = re.compile(r"(?:- ?)?<([A-Za-z][\w:.-]{0,60})(?: [\w:.-]{1,60}=[\"'].*|>\s*)$", re.ASCII)
_CLOSING = re.compile(r"[\"\])}]{1,20}[,;]?")
_PHP = re.compile(r"#\d{1,4} |\[stacktrace\]$|Stack trace:$|Next [\w\\]{1,200}: ", re.ASCII)
_TRACES: Final = (
    # Go: lines of calls, and indented ones of their places.
    (re.compile(r"panic: |fatal error: |goroutine \d{1,9} \[", re.ASCII),
     re.compile(r"goroutine \d{1,9} |created by |\[signal |exit status \d|[\w./*({\[]\S{0,500}\(.{0,500}\)$"
                r"|\.\.\.additional frames", re.ASCII)),
    # Rust: the message is on the second line.
    (re.compile(r"thread '[^']{0,100}' (?:\(\d{1,9}\) )?panicked at "),
     re.compile(r"stack backtrace:|note: (?:run with|Some details)")),
    # The sanitizers of C compilers.
    (re.compile(r"==\d{1,9}==(?:ERROR|WARNING): \w{1,40}Sanitizer", re.ASCII),
     re.compile(r"(?![\[{]|\d{4}-\d\d-)")),
    # java.util.logging writes level and message on the second line.
    (re.compile(r"[A-Z][a-z]{2} \d{1,2}, \d{4},? [\d:]{7,8} [AP]M [\w.$<>-]{1,300} [\w$<>]{1,99}$", re.ASCII),
     re.compile(r"(?:SEVERE|WARNING|INFO|CONFIG|FINE|FINER|FINEST): ")),
)  # fmt: skip
"""Expressions for the first line of a trace, and for its other lines that are not indented."""

_TRACE_STARTS: Final = ("panic: ", "fatal error: ", "goroutine ", "thread '", "==")

_TRACE_FIRST: Final = frozenset("pfgt=JFMASOND")
"""First characters of these, and of the months' names with which java.util.logging begins."""

_BEFORE_JSON: Final = "{ \t"


class MultilineJoiner:
    """Joiner for the lines of one file.

    Args:
        mode: "auto", "off", or an RE2 expression that matches in the first line of every event.
        json: treat every line that looks like a JSON object as a separate event.

    Raises:
        ValueError: the expression is not valid.
    """

    def __init__(self, mode: str, *, json: bool) -> None:
        self._json = json
        self._joins = mode != "off"
        self._pattern = (
            compile_pattern(mode, f"start pattern {mode!r}", for_bytes=True)
            if mode not in ("auto", "off")
            else None
        )
        self.first = 0
        """Offset in the file after the first line of the buffered event."""
        self._key_seen = False
        self._key_open = False
        self._clear()

    def _clear(self) -> None:
        self._lines: list[str] = []
        self._end = 0
        self._flags = 0
        self._bytes = 0
        self._blank_lines = 0
        self._state = _OUTSIDE
        self._trace = _CLOSING  # the other lines of the trace

    @property
    def has_partial(self) -> bool:
        """Whether an event is buffered that may continue."""
        return bool(self._lines)

    def reset(self) -> None:
        """Discard the buffered event; its lines will be fed again."""
        self._clear()
        # They may start within a private key whose first line is not fed again.
        self._key_open = self._key_seen

    def feed(
        self, texts: list[str], sizes: list[int], ends: list[int], line_flags: dict[int, int]
    ) -> list[JoinedEvent]:
        """Add lines; return the events that they complete.

        Args:
            texts: clean lines without line breaks.
            sizes: size of each line in bytes.
            ends: offset in the file after each line.
            line_flags: flags by index, for lines that have any.
        """
        if self._joins and self._are_events(texts, line_flags):
            return self._feed_events(texts, sizes, ends, line_flags)
        events: list[JoinedEvent] = []
        buffered = self._lines
        has_pattern = self._pattern is not None
        for index, text in enumerate(texts):
            if not text or text.isspace():
                self._blank_lines += 1
                continue
            flags = line_flags.get(index, 0) if line_flags else 0
            first = text[0]
            if self._key_open:
                flags |= self._flags_in_key(text)
            if buffered:
                if (self._state or has_pattern or flags or may_continue(text, first)) and self._continues(
                    text, first, flags
                ):
                    size = sizes[index] + 1 + self._blank_lines
                    if len(buffered) + self._blank_lines < MAX_LINES and self._bytes + size <= MAX_BYTES:
                        if self._blank_lines:
                            buffered.extend([""] * self._blank_lines)
                            self._blank_lines = 0
                        buffered.append(text)
                        self._bytes += size
                        self._end = ends[index]
                        # IN_KEY means that an event begins within a key, so only its first line can set it.
                        self._flags |= flags & ~IN_KEY
                        # Every line with these words has the flag, so other lines are not searched.
                        if flags & NEEDS_SANITIZING and "PRIVATE KEY" in text:
                            self._detect_key(text)
                        continue
                else:
                    self._state = _OUTSIDE
                # Also reached by a line that continues the event but exceeds its limits. The state is then
                # kept: the traceback continues in the next event.
                events.append(
                    ("\n".join(buffered) if len(buffered) > 1 else buffered[0], self._end, self._flags)
                )
                buffered.clear()
            self._blank_lines = 0
            if self._json and first in _BEFORE_JSON and self._looks_like_json(text, first):
                events.append((text, ends[index], flags))
                continue
            if flags & NEEDS_SANITIZING and "PRIVATE KEY" in text:
                self._detect_key(text)
            if not self._joins:
                events.append((text, ends[index], flags))
                continue
            buffered.append(text)
            self._bytes = sizes[index]
            self._end = self.first = ends[index]
            self._flags = flags
            if self._state == _OUTSIDE:
                if text.endswith(_TRACEBACK):
                    self._state = _FRAMES
                elif first in _TRACE_FIRST and (text.startswith(_TRACE_STARTS) or "," in text[5:8]):
                    self._detect_trace(text)
        return events

    def _are_events(self, texts: list[str], line_flags: dict[int, int]) -> bool:
        """Return whether every line begins an event, and none begins a private key."""
        return (
            not (self._state or self._key_open or self._pattern is not None)
            # It may open an element of XML.
            and not (self._lines and self._lines[0][0] in "<-" and not self._lines[0][1:2].isdigit())
            and all_begin_events(texts)
            and not any("PRIVATE KEY" in texts[index] for index in line_flags)
        )

    def _feed_events(
        self, texts: list[str], sizes: list[int], ends: list[int], line_flags: dict[int, int]
    ) -> list[JoinedEvent]:
        """Add lines that all begin an event; return the events that they complete."""
        if not texts:
            return []
        events = self.flush()
        flags = [line_flags.get(index, 0) for index in range(len(texts))] if line_flags else repeat(0)
        events += zip(texts, ends, flags, strict=False)
        text, self._end, self._flags = events.pop()
        self._lines.append(text)
        self._blank_lines = 0
        self._bytes = sizes[-1]
        self.first = self._end
        return events

    def flush(self) -> list[JoinedEvent]:
        """Return the buffered event, if there is one."""
        if not self._lines:
            return []
        event = ("\n".join(self._lines), self._end, self._flags)
        self._clear()
        return [event]

    def _continues(self, text: str, first: str, flags: int) -> bool:
        """Return whether a line belongs to the buffered event."""
        if flags & IN_KEY:
            return True
        if self._pattern is not None:
            return not (self._json and self._looks_like_json(text, first)) and not self._pattern.search(
                text.encode()
            )
        if self._state == _FRAMES:
            if first in " \t":
                return True
            match = _LAST_LINE.match(text)
            # The first line that is not indented names the exception; a word in upper case is the level of a
            # new line.
            if match is not None and not match[1].isupper():
                self._state = _ENDED
                return True
        elif self._state == _TRACE and self._continues_trace(text, first):
            return True
        elif not may_continue(text, first):
            return False
        return self._continues_text(text, first)

    def _detect_trace(self, text: str) -> None:
        for begin, others in _TRACES:
            if begin.match(text):
                self._state, self._trace = _TRACE, others
                return

    def _continues_trace(self, text: str, first: str) -> bool:
        if "==ABORTING" in self._lines[-1]:
            return False
        if self._trace.match(text):
            return not self._lines[-1].startswith("exit status ")
        is_message = len(self._lines) == 1 and " panicked at " in self._lines[0] and self._lines[0][-1] == ":"
        return is_message and first not in "0123456789[{<"

    def _continues_text(self, text: str, first: str) -> bool:
        if first in " \t":
            if self._json and self._looks_like_json(text, first):
                return False
            # All lines of an exception group are indented, so its end needs no detection.
            if text.endswith(_TRACEBACK) and self._state != _ENDED:
                self._state = _OUTSIDE if "+ Exception Group" in text else _FRAMES
            return True
        if first == "T" and text.startswith(_TRACEBACK):
            # After a complete traceback this starts another event, unless a line in between chains the two.
            if self._state == _ENDED:
                return False
            self._state = _FRAMES
            return True
        if first in "TD" and text.startswith(_CHAINS):
            # Without a traceback before it, the phrase is an ordinary message.
            if self._state == _OUTSIDE and len(self._lines) == 1:
                return False
            self._state = _CHAINED
            return True
        if first == "<":
            return self._continues_element(text)
        if first in "CSa.-" and (
            text.startswith(("Caused by: ", "Suppressed: ", "--- End of ")) or _JAVA_FRAME.match(text)
        ):
            return True
        if (
            first in '#[SN"]})'
            and len(self._lines) > 1
            and (_PHP.match(text) or _CLOSING.fullmatch(text.rstrip()))
        ):
            return True
        if first == "g" and text.startswith("goroutine ") and "panic" in self._lines[-1]:
            self._detect_trace(text)
            return True
        if first in "[S" and text.rstrip() in ("[stacktrace]", "Stack trace:"):
            return True
        if len(self._lines) > 1:
            # Node writes the source line, a mark, and then the error and its own version.
            return self._lines[-1].strip() == "^" if "Error" in text[:100] else text.startswith("Node.js v")
        # The name of an exception continues only a log line; after another such name it starts a trace of its
        # own.
        return (_JAVA.match(text) or _DOTNET.match(text)) is not None and not (
            _JAVA.match(self._lines[0]) or _DOTNET.match(self._lines[0])
        )

    def _continues_element(self, text: str) -> bool:
        """Return whether a line belongs to the XML element that the first line opens."""
        element = _OPEN_ELEMENT.match(self._lines[0])
        if element is None:
            return False
        closing = f"</{element[1]}>"
        is_open = not self._lines[0].rstrip().endswith("/>") and not any(
            closing in line for line in self._lines
        )
        return is_open and not text.startswith((f"<{element[1]} ", f"<{element[1]}>"))

    def _looks_like_json(self, text: str, first: str) -> bool:
        if first == "{":
            return text.rstrip()[-1] == "}"
        # Within a traceback it is a line of source code.
        return (
            first in " \t" and self._state != _FRAMES and text.strip()[0] == "{" and text.rstrip()[-1] == "}"
        )

    def _detect_key(self, text: str) -> None:
        if opens_key(text):
            self._key_open = self._key_seen = True

    def _flags_in_key(self, text: str) -> int:
        """Return the flags of a line after the first line of a private key."""
        if not is_in_key(text):
            self._key_open = False
            return 0
        if "-----END " in text:
            self._key_open = False
        return IN_KEY | NEEDS_SANITIZING
