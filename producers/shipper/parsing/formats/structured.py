"""Readers of structured lines: JSON objects and logfmt.

Invariants:

1. Fields other than level, message, timestamp and source are kept in metadata.
2. The message of a line without one is the complete line, so that no event is empty.
3. If a sanitizer is given, every value passes through it before it is read.
"""

import re
from typing import Any, Final

import orjson
from tickertape.contracts import strict_json
from tickertape.contracts.events import MAX_EVENT_DEPTH
from tickertape.producers.shipper.parsing.formats.fields import FieldMapping, Fields, Sanitizer
from tickertape.producers.shipper.parsing.formats.otlp import read_records

_MAX_DEPTH: Final = MAX_EVENT_DEPTH - 2
"""Nesting depth of a body that still fits into the metadata of an event."""

_PAIR = re.compile(r'([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"(?!\S)|([^\s"]*)(?!\S))|(\S+)')
_PRIORITY = re.compile(r"<\d{1,3}> ?(?=[A-Za-z])", re.ASCII)
_KEY = re.compile(r"[A-Za-z_@][\w.@/-]*=", re.ASCII)
_HOLE = re.compile(r"\{[@$]?(\w{1,100})(?:[,:][^{}]{0,40})?\}")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class JsonReader:
    """Reader of JSON lines."""

    def __init__(self, mapping: FieldMapping) -> None:
        self._mapping = mapping

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a JSON object; return None for anything else, and for objects too deep for an event."""
        start = text[:1]
        if start != "{" and not (start.isspace() and text.lstrip()[:1] == "{"):
            return None
        # The searches cost little; only texts with brackets within are counted, and only deep ones examined.
        if (
            (text.find("{", 1) >= 0 or "[" in text)
            and text.count("{") + text.count("[") > _MAX_DEPTH
            and strict_json.is_deeper(text.encode(), _MAX_DEPTH)
        ):
            return None
        try:
            body = orjson.loads(text)
        except orjson.JSONDecodeError:
            return None
        if not isinstance(body, dict):
            return None
        if sanitize is not None:
            body = sanitize(body)
            text = ""
        plan = self._mapping.plan(body)
        if plan.is_special:
            return self._read_special(body, text)
        level, message, source, timestamp = self._mapping.take(body, text, plan)
        if message is None:
            return level, orjson.dumps(body).decode(), source, timestamp, {}
        return level, message, source, timestamp, body

    def _read_special(self, body: dict[str, Any], text: str) -> Fields:
        """Read an object with a key of ``_SPECIAL``."""
        if "resourceLogs" in body and (fields := read_records(body, self._mapping)) is not None:
            return fields
        template = body.get("@mt") or body.get("MessageTemplate")
        level, message, source, timestamp = self._mapping.take(body, text)
        if message is None:
            return level, orjson.dumps(body).decode(), source, timestamp, {}
        if message == template:
            message = _render(message, body.get("Properties", body))
        if body.get("event_type") == "system_log":
            del body["event_type"]
        nested = body.pop("metadata", None)
        if isinstance(nested, dict):
            body = {**nested, **body}
        elif nested is not None:
            body["metadata"] = nested
        return level, message, source, timestamp, body


def _render(template: str, properties: object) -> str:
    """Replace the names in a message template, such as ``{Count}``, by their values."""
    values = properties if isinstance(properties, dict) else {}

    def replace(match: re.Match[str]) -> str:
        value = values.get(match[1])
        return (
            match[0] if value is None else value if isinstance(value, str) else orjson.dumps(value).decode()
        )

    return _HOLE.sub(replace, template)


class LogfmtReader:
    """Reader of ``name=value`` lines, in which values with spaces are in double quotes."""

    def __init__(self, mapping: FieldMapping) -> None:
        self._mapping = mapping

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a line of two or more pairs and nothing else; further lines belong to the message."""
        if text[:1] == "<":  # the priority that firewalls write before the pairs
            text = _PRIORITY.sub("", text, count=1)
        if _KEY.match(text) is None:
            return None
        line, _, rest = text.partition("\n") if "\n" in text else (text, "", "")
        body = _read_pairs_with_escapes(line) if "\\" in line else _read_pairs(line)
        if body is None:
            return None
        if sanitize is not None:
            body = sanitize(body)
            line = sanitize(line)
            rest = sanitize(rest)
        level, message, source, timestamp = self._mapping.take(body)
        if message is None:
            message, body = line, {}
        elif timestamp is None:
            timestamp = self._mapping.find_time(message)  # such as 'msg=audit(1750000000.123:1):'
        if rest:
            message = f"{message}\n{rest}"
        return level, message, source, timestamp, body


def _read_pairs(line: str) -> dict[str, Any] | None:
    """Read the pairs of a line without escapes; return None if there is anything else, or one pair only."""
    if '"' not in line:
        words = line.split()
        try:
            body = dict([word.split("=", 1) for word in words])
        except ValueError:  # a word without the mark
            return None
        return body if len(words) > 1 and "" not in body else None
    body = {}
    count = 0
    # Every second segment is the value of the name before it.
    outside, *segments = line.split('"')
    if len(segments) % 2:
        return None
    position = 0
    while True:
        words = outside.split()
        quoted = words.pop() if position < len(segments) and words and words[-1][-1] == "=" else None
        for word in words:
            name, mark, value = word.partition("=")
            if not mark or not name:
                return None
            body[name] = value
        count += len(words)
        if position == len(segments):
            return body if count > 1 else None
        # The quote must be directly after the mark, and a space after the closing one.
        following = segments[position + 1]
        if quoted is None or outside[-1] != "=" or "=" in quoted[:-1] or len(quoted) == 1:
            return None
        if following and not following[0].isspace():
            return None
        body[quoted[:-1]] = segments[position]
        count += 1
        outside = following
        position += 2


def _read_pairs_with_escapes(line: str) -> dict[str, Any] | None:
    body: dict[str, Any] = {}
    count = 0
    for name, quoted, bare, unmatched in _PAIR.findall(line):
        if unmatched:
            return None
        count += 1
        body[name] = bare or (_unescape(quoted) if "\\" in quoted else quoted)
    return body if count > 1 else None


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_unescape_match, text)


def _unescape_match(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        character = chr(int(code[1:], 16))
        # A lone surrogate is not a character.
        return "\ufffd" if "\ud800" <= character <= "\udfff" else character
    return _ESCAPES.get(code, code)
