"""Lines that begin with a head and end with a message: plain text, Python's logging, loguru and glog.

Invariants:

1. The message does not repeat what the head says and the event says in fields of its own.
2. A head that only looks like one of a format leaves the line to the plain reader.
"""

import re
from typing import Final

from tickertape.producers.shipper.parsing import levels
from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer, legal_source
from tickertape.producers.shipper.parsing.timestamps import STAMP, TimestampParser

_BEFORE_MESSAGE: Final = " \t|]:-"
_PLAIN = re.compile(
    rf"[\[(]?{STAMP}(?:[\])]?[ \t|:-]*[\[<(]?([A-Z]{{3,11}})(?![A-Za-z0-9_])[\])>]?)?", re.ASCII
)
_BROKEN = ("Traceback (most recent call last)", "Exception in thread ", "panic: ")

# asctime - name - LEVEL - message, and asctime LEVEL name message with or without marks around them.
_PYTHON = re.compile(
    rf"\[?{STAMP}\]?(?: - ([\w.$<>-]+) - ([A-Z]{{3,11}}) - |[ \t|]+\[?([A-Z]{{3,11}})\]?[ \t|]+"
    r"(?:\[([\w.$-]+)\]:?[ \t]|([A-Za-z_][\w.$-]*)(:|[ \t]+-|[ \t]+\||)[ \t]+))",
    re.ASCII,
)
_BASIC = re.compile(r"([A-Z]{3,11}):([A-Za-z_][\w.$/-]*):(?!//)", re.ASCII)
_NO_NAME = re.compile(r"(?:Error|Exception|Warning)$")

_LOGURU = re.compile(rf"{STAMP} \| ([A-Z][A-Za-z]*)[ ]* \| ([^\s:|]+):([^\s:|]+):(\d+) - ", re.ASCII)
_GLOG = re.compile(
    r"([IWEFD])(?:(\d{4}))?(\d\d)(\d\d) (\d\d:\d\d)(:[0-5]\d)\.(\d{1,9})[ ]+(\d+) ([^\s:\]]+):(\d+)\] ?",
    re.ASCII,
)


class PlainReader:
    """Any text, with a time and a level near its beginning, or without."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        """Read a text."""
        head = _PLAIN.match(text)
        if head is None:
            known = levels.find(text)
            if known is not None:
                return known[0], text, None, None, {}
            return ("ERROR" if text.startswith(_BROKEN) else None), text, None, None, {}
        minute, second, fraction, zone, word = head.groups()
        timestamp = self._timestamps.join(minute, second, fraction, zone)
        level = levels.IN_TEXT.get(word) if word is not None else None
        if level is not None:
            if timestamp is None:
                return level, text, None, None, {}
            return level, text[head.end() :].lstrip(_BEFORE_MESSAGE) or text, None, timestamp, {}
        found = levels.find(text)
        if found is not None:
            level = found[0]
        if timestamp is None:
            return level, text, None, None, {}
        end = _stamp_end(head)
        if found is not None and not text[end : found[1]].strip(" \t|[]-"):
            end = found[2]
        return level, text[end:].lstrip(_BEFORE_MESSAGE) or text, None, timestamp, {}


class PythonReader:
    """The usual forms of Python's logging.

    Args:
        times: reads times.
        strict: the name must be marked as one, since a word behind the level may begin the message.
    """

    def __init__(self, timestamps: TimestampParser, *, strict: bool) -> None:
        self._timestamps = timestamps
        self._strict = strict

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; None when it has no such head."""
        head = _PYTHON.match(text)
        if head is None:
            basic = _BASIC.match(text)
            level = levels.IN_TEXT.get(basic[1]) if basic is not None else None
            name = legal_source(basic[2]) if basic is not None else None
            if basic is None or level is None or name is None:
                return None
            return level, text[basic.end() :].strip(" \t") or text, name, None, {}
        minute, second, fraction, zone, dashed, word, other, inner, name, mark = head.groups()
        level = levels.IN_TEXT.get(word or other)
        if level is None:
            return None
        if name is not None and self._strict and not mark and "." not in name and name != "root":
            return None
        # Only Python writes a comma; 'ERROR timeout: 30 s' of others names no logger.
        if self._strict and not dashed and (fraction is None or text[head.start(3) - 1] != ","):
            return None
        source = legal_source(dashed or inner or name)
        if source is None or _NO_NAME.search(source):
            return None
        timestamp = self._timestamps.join(minute, second, fraction, zone)
        if timestamp is None:
            return None
        return level, text[head.end() :].lstrip(" \t") or text, source, timestamp, {}


class LoguruReader:
    """Loguru's own form: time, level and place between bars, then the message."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; None when it has no such head."""
        head = _LOGURU.match(text)
        if head is None:
            return None
        minute, second, fraction, zone, word, module, function, line = head.groups()
        timestamp = self._timestamps.join(minute, second, fraction, zone)
        if timestamp is None:
            return None
        metadata = {"function": function, "line": int(line[:9])}
        message = text[head.end() :] or text
        # Levels can be added to loguru; one of those is told in the metadata.
        level = levels.WORDS.get(word)
        if level is None:
            metadata["level"] = word
        return level, message, legal_source(module), timestamp, metadata


class GlogReader:
    """Lines of glog, absl and klog: a letter for the level, a time without a year, a thread and a place."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; None when it has no such head."""
        head = _GLOG.match(text)
        if head is None:
            return None
        letter, year, month, day, minute, second, fraction, thread, file, line = head.groups()
        if year is None:
            timestamp = self._timestamps.from_yearless_groups(month, day, minute, second, fraction)
        else:
            timestamp = self._timestamps.join(f"{year}-{month}-{day} {minute}", second, fraction, None)
        if timestamp is None:
            return None
        metadata = {"thread": int(thread[:18]), "file": file, "line": int(line[:9])}
        return levels.WORDS[letter], text[head.end() :] or text, None, timestamp, metadata


def _stamp_end(head: re.Match[str]) -> int:
    """End of the time, without what was tried behind it."""
    for group in (4, 3, 2):
        if head.end(group) >= 0:
            return head.end(group)
    raise AssertionError("a stamp has seconds")
