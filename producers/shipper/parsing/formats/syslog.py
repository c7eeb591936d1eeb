"""Lines of syslog: RFC 3164 as daemons write it into files, and RFC 5424.

Invariants:

1. The severity of a priority is the level; without one the level is looked for in the message.
2. Structured data is kept: each element is an object in metadata under its id.
"""

import re
from typing import Any

from tickertape.producers.shipper.parsing import levels
from tickertape.producers.shipper.parsing.formats.fields import Fields, Sanitizer, legal_source
from tickertape.producers.shipper.parsing.timestamps import STAMP, TimestampParser

_OLD = re.compile(
    r"(?:<(\d{1,3})>)?(?:(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) ([ \d]\d) (\d\d:\d\d)(:[0-5]\d)"
    rf"(?:\.(\d{{1,9}}))?|{STAMP}) ([\w.:-]+) ([^\s:\[\]]{{1,64}})(?:\[([\w.-]+)\])?:(?: |$)",
    re.ASCII,
)
_NEW = re.compile(
    rf"<(\d{{1,3}})>1 (?:-|{STAMP}) (\S+) (\S+) (\S+) (\S+) (?:-|((?:\[[^\s=\]\"]+"
    r"(?: [^\s=\]\"]+=\"(?:[^\"\\\]]|\\.)*\")*\])+))(?: |$)",
    re.ASCII | re.DOTALL,
)
_ELEMENT = re.compile(r"\[([^\s=\]\"]+)((?: [^\s=\]\"]+=\"(?:[^\"\\\]]|\\.)*\")*)\]", re.DOTALL)
_PARAMETER = re.compile(r" ([^\s=\]\"]+)=\"((?:[^\"\\\]]|\\.)*)\"", re.DOTALL)
_ESCAPED = re.compile(r"\\([\"\\\]])")


class SyslogReader:
    """Both forms of syslog."""

    def __init__(self, timestamps: TimestampParser) -> None:
        self._timestamps = timestamps

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a text; None when it is neither form."""
        head = _NEW.match(text)
        if head is not None:
            return self._new(text, head)
        head = _OLD.match(text)
        return self._old(text, head) if head is not None else None

    def _old(self, text: str, head: re.Match[str]) -> Fields | None:
        priority, month, day, minute, second, fraction, *stamp, host, tag, pid = head.groups()
        if month is not None:
            timestamp = self._timestamps.from_yearless_groups(month, day.strip(), minute, second, fraction)
        else:
            # A plain line may begin with a time and two words, the second with a colon.
            if priority is None and pid is None:
                return None
            timestamp = self._timestamps.join(*stamp)
        number = int(priority) if priority is not None else None
        source = legal_source(tag)
        if timestamp is None or source is None or (number is not None and number > 191):
            return None
        message = text[head.end() :] or text
        metadata: dict[str, Any] = {"host": host}
        if pid is not None:
            metadata["pid"] = pid
        if number is not None:
            metadata["facility"] = number >> 3
            return levels.SYSLOG[number & 7], message, source, timestamp, metadata
        found = levels.find(message)
        return (found[0] if found is not None else None), message, source, timestamp, metadata

    def _new(self, text: str, head: re.Match[str]) -> Fields | None:
        priority, *stamp, host, app, pid, message_id, data = head.groups()
        number = int(priority)
        if number > 191:
            return None
        timestamp = self._timestamps.join(*stamp) if stamp[0] is not None else None
        named = (("host", host), ("pid", pid), ("message_id", message_id))
        metadata: dict[str, Any] = {key: value for key, value in named if value != "-"}
        metadata["facility"] = number >> 3
        if data is not None:
            for name, parameters in _ELEMENT.findall(data):
                if not isinstance(metadata.get(name, {}), dict):
                    name = f"sd.{name}"
                metadata[name] = metadata.get(name, {}) | {
                    key: _ESCAPED.sub(r"\1", value) for key, value in _PARAMETER.findall(parameters)
                }
        message = text[head.end() :] or text
        source = legal_source(app) if app != "-" else None
        return levels.SYSLOG[number & 7], message, source, timestamp, metadata
