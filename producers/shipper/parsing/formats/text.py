"""Readers of lines with a header and a message: plain text, Python's logging, loguru and glog.

Invariants:

1. The message does not repeat what the event has as fields.
2. A line whose header only resembles a format is left to the plain reader.
"""

import re
from typing import Any, Final

from tickertape.producers.shipper.parsing import levels
from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer, legal_source
from tickertape.producers.shipper.parsing.formats.xml import read_element
from tickertape.producers.shipper.parsing.time_formats import (
    ACCESS,
    COMPACT,
    GLOG,
    GLOG_WITH_YEAR,
    ISO,
    TIMESTAMP_PATTERN,
    TimeFormat,
)
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

_BEFORE_MESSAGE: Final = " \t|]:,;-"
_AFTER_HEADER: Final = _BEFORE_MESSAGE + ')>"'
_AROUND_LEVEL: Final = ' \t|[]<>():,-"'
_WORD_AFTER: Final = r"([A-Za-z]{3,11})(?![A-Za-z0-9_.'@+/-])[\])>]?"
_LEVEL_AFTER: Final = rf"(?:[\])\"]?[ \t|:,-]*[\[<(]?{_WORD_AFTER})?"
_TO_MESSAGE: Final = rf"[{re.escape(_BEFORE_MESSAGE)}]*"
# What follows the minute of a line in the most common format, as the expression of that format matches it.
_AFTER_MINUTE = re.compile(rf"([0-5]\d)(?:[.,](\d{{1,9}}))?(Z?) {_WORD_AFTER}{_TO_MESSAGE}", re.ASCII)
_NO_MINUTE: Final = "\n"
"""What no text begins with."""

_PROCESS = re.compile(r"\[(\d{1,10})\] (?=\[|$)", re.ASCII)
_LETTERS = re.compile(r"[A-Za-z]{3}|<[A-Z]>")
_REDIS = re.compile(r"(?:\d{1,10}:[CMSX]|\[\d{1,10}\](?= \d\d [A-Z][a-z]{2} )) ", re.ASCII)
_CSV = re.compile(r",(DEBUG[1-5]|LOG|INFO|NOTICE|WARNING|ERROR|FATAL|PANIC),[0-9A-Z]{5},\"", re.ASCII)
"""Level and code of PostgreSQL's log in CSV."""

_ACCESS = re.compile(r'"[A-Z]{3,10} [^"]*" ([1-5])\d\d(?: |$)', re.ASCII)
_ACCESS_LEVELS: Final = {"4": "WARN", "5": "ERROR"}
# The lines of most access logs, which have no level: their timestamp is what the parser of timestamps finds.
_ACCESS_LINE = re.compile(
    r"(?:\d{1,3}\.){3}\d{1,3} - (-|[A-Za-z]{1,40}) \[([0-3]\d/[A-Z][a-z]{2}/[12]\d{3}:[0-2]\d:[0-5]\d:)"
    r"([0-5]\d)( [+-]\d{4})\] \"(?:GET|POST|PUT|HEAD|DELETE|OPTIONS|PATCH) ",
    re.ASCII,
)
_ERROR_START = re.compile(
    r"Traceback \(most recent call last\)|Exception in thread |panic: |fatal error: |goroutine \d{1,9} \["
    r"|thread '[^']{0,100}' (?:\(\d{1,9}\) )?panicked at |Unhandled [Ee]xception|==\d{1,9}==ERROR: "
    r"|(?:[\w.]{0,200})(?:Error|Exception)(?:: |$)",
    re.ASCII | re.MULTILINE,
)
_JUL_LEVEL = re.compile(r"\n([A-Z]{4,7}): ")

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
_GLOG_LETTERS: Final = frozenset("IWEFD")
_GLOG = re.compile(
    r"([IWEFD])((?:\d\d|\d{4})?\d\d\d\d \d\d:\d\d:)([0-5]\d)\.(\d{1,9})[ ]+(\d+) ([^\s:\]]+):(\d+)"
    r"(?:\] ?| ⋮ )",
    re.ASCII,
)


class PlainReader:
    """Reader of any text, with or without a timestamp and a level near its beginning.

    Args:
        timestamps: parser of timestamps.
        access_levels: lines of access logs have a level by their status.
    """

    def __init__(self, timestamps: TimestampParser, *, access_levels: bool = False) -> None:
        self._timestamps = timestamps
        self._glog = GlogReader(timestamps)
        self._access_levels = access_levels
        # Most files have one format, and most lines begin with the timestamp, followed by the level.
        self._format = timestamps.last
        self._header = _header(self._format)
        self._minute = _NO_MINUTE  # of the last line, up to its seconds

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields:
        """Read a text; every text is accepted."""
        if text.startswith(self._minute):
            fields = self._read_same_minute(text)
            if fields is not None:
                return fields
        header = self._header.match(text)
        if header is None:
            fields = self._read_access(text) if self._format is ACCESS else None
            return fields or self._read_any(text)
        process, before, second, fraction, after, word = header.groups()
        level = levels.AFTER_TIME.get(word)
        if level is not None:
            timestamp = self._timestamps.from_parts(self._format, before, second, fraction, after)
            if timestamp is not None:
                if self._format is ISO and not header.start(2):
                    self._minute = before
                metadata = {"pid": process} if process is not None else {}
                return level, text[header.end() :] or text, None, timestamp, metadata
        start = header.start(2)
        if not self._is_found(start):
            return self._read_any(text)
        timestamp = self._timestamps.from_header(self._format, before, second, fraction, after)
        return self._read_found(text, start, header.end(5), timestamp)

    def _is_found(self, start: int) -> bool:
        """Return whether a search finds the timestamp that the header has at an offset."""
        # Only a bracket may precede it.
        return start < 2 and self._format.begins_candidate and self._timestamps.last is self._format

    def _read_same_minute(self, text: str) -> Fields | None:
        """Read a line of the same minute as the last one; return None if no level follows the timestamp."""
        # The minute ends at the second colon, however the format is matched.
        rest = _AFTER_MINUTE.match(text, len(self._minute))
        if rest is None:
            return None
        second, fraction, after, word = rest.groups()
        level = levels.AFTER_TIME.get(word)
        if level is None:
            return None
        timestamp = self._timestamps.from_parts(ISO, self._minute, second, fraction, after)
        return (level, text[rest.end() :] or text, None, timestamp, {}) if timestamp is not None else None

    def _read_access(self, text: str) -> Fields | None:
        """Read a line of an access log; return None for one that needs a search."""
        line = _ACCESS_LINE.match(text)
        if line is None or "\n" in text:
            return None
        user, before, second, after = line.groups()
        timestamps = self._timestamps
        if (
            not timestamps.is_known(ACCESS, before, after)
            or user.upper() in levels.IN_HEADER
            or levels.find_pair(text, len(text)) is not None
        ):
            return None
        level = None
        if self._access_levels and (status := _ACCESS.search(text, line.end(4))) is not None:
            level = _ACCESS_LEVELS.get(status[1])
        return level, text, None, timestamps.from_header(ACCESS, before, second, None, after), {}

    def _read_any(self, text: str) -> Fields:
        found = self._timestamps.find(text)
        if found is None:
            if text[:1] in _GLOG_LETTERS and text[1:5].isdigit():  # among lines of another format
                fields = self._glog.read(text)
                if fields is not None:
                    return fields
            if "<" in text[:3]:
                fields = read_element(text, self._timestamps)
                if fields is not None:
                    return fields
            level_and_end = levels.find(text)
            if level_and_end is None and _ERROR_START.match(text) is not None:
                return "ERROR", text, None, None, {}
            level = level_and_end[0] if level_and_end is not None else None
            return level, text, None, None, {}
        if self._timestamps.last is not self._format and not self._timestamps.last.is_special:
            self._format = self._timestamps.last
            self._header = _header(self._format)
            self._minute = _NO_MINUTE
        return self._read_found(text, *found)

    def _read_found(self, text: str, start: int, end: int, timestamp: str | None) -> Fields:
        """Read a text with a timestamp between two positions."""
        before = text[:start]
        # nats-server begins with its process, which is not part of the message.
        process = _PROCESS.match(before) if start else None
        metadata: dict[str, Any] = {"pid": process[1]} if process is not None else {}
        is_first = not before[process.end() if process is not None else 0 :].strip("[(\"' ")
        level_and_end = None
        if not is_first and _LETTERS.search(before) is not None:
            level_and_end = levels.find(text, 0, stop=start)
        if level_and_end is not None:
            is_first, level_end = True, end
        else:
            level_and_end = levels.find(text, end, has_time=True)
            level_end = level_and_end[1] if level_and_end is not None else end
            # A level right after the timestamp belongs to the header, which the message does not repeat.
            if not text[end:level_end].strip(_AROUND_LEVEL).isalpha():
                level_end = end
        level = level_and_end[0] if level_and_end is not None else None
        if level is None and "\n" in text and (second := _JUL_LEVEL.search(text, end, end + 500)) is not None:
            level = levels.level_of(second[1])
        if level is None and text[end : end + 1] == "," and (state := _CSV.search(text, end, end + 500)):
            level = levels.level_of(state[1])
        if level is None and (redis := _REDIS.match(text)) is not None and redis.end() == start:
            level = levels.of_redis(text, end)
        if level is None and self._access_levels and (status := _ACCESS.search(text, end)) is not None:
            level = _ACCESS_LEVELS.get(status[1])
        if timestamp is None or not is_first:
            zone = self._timestamps.unknown_zone
            return level, text, None, timestamp, {"unknown_zone": zone} if zone is not None else {}
        return level, text[level_end:].lstrip(_AFTER_HEADER) or text, None, timestamp, metadata


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
            before,
            second,
            fraction,
            after,
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
        if self._strict and not dashed_name and (not fraction or text[header.start(3) - 1] != ","):
            return None
        source = legal_source(dashed_name or bracketed_name or name)
        if source is None or _NOT_A_LOGGER.search(source):
            return None
        timestamp = self._timestamps.from_groups(before, second, fraction, after)
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
        before, second, fraction, after, level_name, module, function, line = header.groups()
        timestamp = self._timestamps.from_groups(before, second, fraction, after)
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
        letter, before, second, fraction, thread, file, line = header.groups()
        time_format = {4: GLOG, 6: GLOG_WITH_YEAR}.get(before.index(" "), COMPACT)
        timestamp = self._timestamps.from_parts(time_format, before, second, fraction, None)
        if timestamp is None:
            return None
        # Numbers are cut, because a line can hold any number of digits and orjson encodes at most 64 bits.
        metadata = {"thread": int(thread[:18]), "file": file, "line": int(line[:9])}
        return levels.WORDS[letter], text[header.end() :] or text, None, timestamp, metadata


def _header(time_format: TimeFormat) -> re.Pattern[str]:
    """Compile the expression for a line that begins with a timestamp, and has a level directly after it."""
    return re.compile(
        rf"(?:\[(\d{{1,10}})\] )?[\[(]?{time_format.regex.pattern}{_LEVEL_AFTER}{_TO_MESSAGE}",
        re.ASCII,
    )
