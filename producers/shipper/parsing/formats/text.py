"""Readers of lines with a header and a message: plain text, Python's logging, loguru and glog.

Invariants:

1. The message does not repeat what the event has as fields.
2. A line whose header only resembles a format is left to the plain reader.
"""

import re
from typing import Final

from tickertape.producers.shipper.parsing import levels
from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer, legal_source
from tickertape.producers.shipper.parsing.timestamps import TIMESTAMP_PATTERN, TimestampParser

_BEFORE_MESSAGE: Final = " \t|]:-"
_PLAIN = re.compile(
    rf"[\[(]?{TIMESTAMP_PATTERN}(?:[\])]?[ \t|:-]*[\[<(]?([A-Z]{{3,11}})(?![A-Za-z0-9_])[\])>]?)?", re.ASCII
)
_ERROR_STARTS = ("Traceback (most recent call last)", "Exception in thread ", "panic: ")

# asctime - name - LEVEL - message, and asctime LEVEL name message with or without marks around them.
_PYTHON = re.compile(
    rf"\[?{TIMESTAMP_PATTERN}\]?(?: - ([\w.$<>-]+) - ([A-Z]{{3,11}}) - |[ \t|]+\[?([A-Z]{{3,11}})\]?[ \t|]+"
    r"(?:\[([\w.$-]+)\]:?[ \t]|([A-Za-z_][\w.$-]*)(:|[ \t]+-|[ \t]+\||)[ \t]+))",
    re.ASCII,
)
# Python's default format, LEVEL:name:message; after 'INFO:http:' two slashes mean that the name is part of a
# URL.
_BASIC = re.compile(r"([A-Z]{3,11}):([A-Za-z_][\w.$/-]*):(?!//)", re.ASCII)
# In 'ERROR ValueError: ...' the word after the level begins the message.
_NOT_A_LOGGER = re.compile(r"(?:Error|Exception|Warning)$")

_LOGURU = re.compile(
    rf"{TIMESTAMP_PATTERN} \| ([A-Z][A-Za-z]*)[ ]* \| ([^\s:|]+):([^\s:|]+):(\d+) - ", re.ASCII
)
_GLOG = re.compile(
    r"([IWEFD])(?:(\d{4}))?(\d\d)(\d\d) (\d\d:\d\d)(:[0-5]\d)\.(\d{1,9})[ ]+(\d+) ([^\s:\]]+):(\d+)\] ?",
    re.ASCII,
)


class PlainReader:
    """Reader of any text, with or without a timestamp and a level near its beginning."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        """Read a text; every text is accepted."""
        header = _PLAIN.match(text)
        if header is None:
            match = levels.find(text)
            if match is not None:
                return match[0], text, None, None, {}
            return ("ERROR" if text.startswith(_ERROR_STARTS) else None), text, None, None, {}
        minute, second, fraction, zone, level_name = header.groups()
        timestamp = self._timestamps.from_groups(minute, second, fraction, zone)
        level = levels.IN_TEXT.get(level_name) if level_name is not None else None
        if level is not None:
            if timestamp is None:
                return level, text, None, None, {}
            return level, text[header.end() :].lstrip(_BEFORE_MESSAGE) or text, None, timestamp, {}
        match = levels.find(text)
        if match is not None:
            level = match[0]
        if timestamp is None:
            return level, text, None, None, {}
        end = _timestamp_end(header)
        # A level right after the timestamp belongs to the header, which the message does not repeat.
        if match is not None and not text[end : match[1]].strip(" \t|[]-"):
            end = match[2]
        return level, text[end:].lstrip(_BEFORE_MESSAGE) or text, None, timestamp, {}


class PythonReader:
    """Reader of the common formats of Python's logging.

    Args:
        timestamps: parser of timestamps.
        strict: require a recognizable logger name, since a word after the level may begin the message.
    """

    def __init__(self, timestamps: TimestampParser, *, strict: bool) -> None:
        self._timestamps = timestamps
        self._strict = strict

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; return None if it has no such header."""
        header = _PYTHON.match(text)
        if header is None:
            basic = _BASIC.match(text)
            level = levels.IN_TEXT.get(basic[1]) if basic is not None else None
            name = legal_source(basic[2]) if basic is not None else None
            if basic is None or level is None or name is None:
                return None
            return level, text[basic.end() :].strip(" \t") or text, name, None, {}
        (
            minute,
            second,
            fraction,
            zone,
            dashed_name,
            dashed_level,
            other_level,
            bracketed_name,
            name,
            separator,
        ) = header.groups()
        level = levels.IN_TEXT.get(dashed_level or other_level)
        if level is None:
            return None
        if name is not None and self._strict and not separator and "." not in name and name != "root":
            return None
        # Only Python writes a comma before milliseconds; in 'ERROR timeout: 30 s' the word is no logger name.
        if self._strict and not dashed_name and (fraction is None or text[header.start(3) - 1] != ","):
            return None
        source = legal_source(dashed_name or bracketed_name or name)
        if source is None or _NOT_A_LOGGER.search(source):
            return None
        timestamp = self._timestamps.from_groups(minute, second, fraction, zone)
        if timestamp is None:
            return None
        return level, text[header.end() :].lstrip(" \t") or text, source, timestamp, {}


class LoguruReader:
    """Reader of loguru's default format: timestamp, level and location between bars, then the message."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; return None if it has no such header."""
        header = _LOGURU.match(text)
        if header is None:
            return None
        minute, second, fraction, zone, level_name, module, function, line = header.groups()
        timestamp = self._timestamps.from_groups(minute, second, fraction, zone)
        if timestamp is None:
            return None
        metadata = {"function": function, "line": int(line[:9])}
        message = text[header.end() :] or text
        # Applications can define custom levels, which are kept in metadata.
        level = levels.WORDS.get(level_name)
        if level is None:
            metadata["level"] = level_name
        return level, message, legal_source(module), timestamp, metadata


class GlogReader:
    """Reader of glog, absl and klog lines: level letter, timestamp without a year, thread and location."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; return None if it has no such header."""
        header = _GLOG.match(text)
        if header is None:
            return None
        letter, year, month, day, minute, second, fraction, thread, file, line = header.groups()
        if year is None:
            timestamp = self._timestamps.from_yearless_groups(month, day, minute, second, fraction)
        else:
            timestamp = self._timestamps.from_groups(f"{year}-{month}-{day} {minute}", second, fraction, None)
        if timestamp is None:
            return None
        # Numbers are cut, because a line can hold any number of digits and orjson encodes at most 64 bits.
        metadata = {"thread": int(thread[:18]), "file": file, "line": int(line[:9])}
        return levels.WORDS[letter], text[header.end() :] or text, None, timestamp, metadata


def _timestamp_end(header: re.Match[str]) -> int:
    """Return the end of the timestamp, without optional groups that did not match."""
    for group in (4, 3, 2):
        if header.end(group) >= 0:
            return header.end(group)
    raise AssertionError("a timestamp has seconds")
