"""Reader of syslog lines: RFC 3164 as daemons write it into files, and RFC 5424.

Invariants:

1. The level is the severity of the priority; without a priority it is searched for in the message.
2. Structured data is kept: each element is an object in metadata under its id.
"""

import re
from typing import Any

from tickertape.producers.shipper.parsing import levels
from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer, legal_source
from tickertape.producers.shipper.parsing.time_formats import SYSLOG, TIMESTAMP_PATTERN
from tickertape.producers.shipper.parsing.timestamps import TimestampParser

_RFC3164 = re.compile(
    rf"(?:<(\d{{1,3}})>)?(?:{SYSLOG.regex.pattern}|{TIMESTAMP_PATTERN}) (?:<(\w{{1,10}}\.(\w{{1,7}}))> )?"
    r"([\w.:-]*[\w.-]) (?:(emerg|alert|crit|err|error|warning|notice|info|debug) )?([^\s:\[\]]{1,64})"
    r"(?:\[([\w.-]+)\])?:(?: |$)",
    re.ASCII,
)
_RFC5424 = re.compile(
    rf"<(\d{{1,3}})>1 (?:-|{TIMESTAMP_PATTERN}) (\S+) (\S+) (\S+) (\S+) (?:-|((?:\[[^\s=\]\"]+"
    r"(?: [^\s=\]\"]+=\"(?:[^\"\\\]]|\\.)*\")*\])+))(?: |$)",
    re.ASCII | re.DOTALL,
)
_ELEMENT = re.compile(r"\[([^\s=\]\"]+)((?: [^\s=\]\"]+=\"(?:[^\"\\\]]|\\.)*\")*)\]", re.DOTALL)
_PARAMETER = re.compile(r" ([^\s=\]\"]+)=\"((?:[^\"\\\]]|\\.)*)\"", re.DOTALL)
_ESCAPED = re.compile(r"\\([\"\\\]])")


_TIME_AND_HOST = re.compile(
    rf"<(\d{{1,3}})>(?:{SYSLOG.regex.pattern}|{TIMESTAMP_PATTERN}) ([\w.:-]*[\w.-]) ", re.ASCII
)
_PRIORITY = re.compile(r"<(\d{1,3})>(?:([A-Za-z_][\w./-]{0,63})(?:\[(\d{1,9})\])?: )?", re.ASCII)


class SyslogReader:
    """Reader of both syslog formats.

    Args:
        timestamps: parser of timestamps.
        lenient: read a priority without a tag, or without a time and a host, as many programs send it.
    """

    def __init__(self, timestamps: TimestampParser, *, lenient: bool = False) -> None:
        self._timestamps = timestamps
        self._lenient = lenient

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; return None if it has neither format."""
        if text.startswith("<"):
            header = _RFC5424.match(text)
            if header is not None:
                return self._read_rfc5424(text, header)
        header = _RFC3164.match(text)
        fields = self._read_rfc3164(text, header) if header is not None else None
        if fields is None and self._lenient:
            return self._read_without_tag(text) or _read_priority(text)
        return fields

    def _read_without_tag(self, text: str) -> Fields | None:
        header = _TIME_AND_HOST.match(text)
        if header is None:
            return None
        priority, *yearless_groups, before, second, fraction, after, host = header.groups()
        if before is None:
            timestamp = self._timestamps.from_parts(SYSLOG, *yearless_groups)
        else:
            timestamp = self._timestamps.from_groups(before, second, fraction, after)
        code = int(priority)
        if timestamp is None or code > 191:
            return None
        message = text[header.end() :] or text
        return levels.SYSLOG[code & 7], message, None, timestamp, {"host": host, "facility": code >> 3}

    def _read_rfc3164(self, text: str, header: re.Match[str]) -> Fields | None:
        groups = header.groups()
        priority, *yearless_groups, before, second, fraction, after, names, severity, host, word, tag, pid = (
            groups
        )
        if before is None:
            timestamp = self._timestamps.from_parts(SYSLOG, *yearless_groups)
        else:
            # A plain line may also begin with a timestamp and two words, the second with a colon.
            if priority is None and pid is None:
                return None
            timestamp = self._timestamps.from_groups(before, second, fraction, after)
        code = int(priority) if priority is not None else None
        source = legal_source(tag)
        # 191 is the largest priority: facility 23 with severity 7.
        if timestamp is None or source is None or (code is not None and code > 191):
            return None
        message = text[header.end() :] or text
        metadata: dict[str, Any] = {"host": host}
        if pid is not None:
            metadata["pid"] = pid
        if code is not None:
            metadata["facility"] = code >> 3
            return levels.SYSLOG[code & 7], message, source, timestamp, metadata
        if names is not None:  # of BSD's syslogd -v
            metadata["facility"] = names.partition(".")[0]
            return levels.level_of(severity), message, source, timestamp, metadata
        if word is not None:  # of F5's systems
            return levels.level_of(word), message, source, timestamp, metadata
        level_and_end = levels.find(message)
        level = level_and_end[0] if level_and_end is not None else None
        return level, message, source, timestamp, metadata

    def _read_rfc5424(self, text: str, header: re.Match[str]) -> Fields | None:
        priority, *timestamp_groups, host, app, pid, message_id, data = header.groups()
        code = int(priority)
        if code > 191:
            return None
        timestamp = (
            self._timestamps.from_groups(*timestamp_groups) if timestamp_groups[0] is not None else None
        )
        named = (("host", host), ("pid", pid), ("message_id", message_id))
        metadata: dict[str, Any] = {key: value for key, value in named if value != "-"}
        metadata["facility"] = code >> 3
        if data is not None:
            for name, parameters in _ELEMENT.findall(data):
                # An element can have the name of a field of the header.
                if not isinstance(metadata.get(name, {}), dict):
                    name = f"sd.{name}"
                metadata[name] = metadata.get(name, {}) | {
                    key: _ESCAPED.sub(r"\1", value) for key, value in _PARAMETER.findall(parameters)
                }
        message = text[header.end() :] or text
        source = legal_source(app) if app != "-" else None
        return levels.SYSLOG[code & 7], message, source, timestamp, metadata


def _read_priority(text: str) -> Fields | None:
    header = _PRIORITY.match(text)
    if header is None:
        return None
    priority, tag, pid = header.groups()
    code = int(priority)
    if code > 191:
        return None
    metadata: dict[str, Any] = {"facility": code >> 3}
    if pid is not None:
        metadata["pid"] = pid
    source = legal_source(tag) if tag is not None else None
    return levels.SYSLOG[code & 7], text[header.end() :] or text, source, None, metadata
