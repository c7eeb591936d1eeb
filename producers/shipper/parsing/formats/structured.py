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

_MAX_DEPTH: Final = MAX_EVENT_DEPTH - 2
"""Nesting depth of a body that still fits into the metadata of an event."""

_PAIR = re.compile(r'([^\s="]+)=(?:"((?:[^"\\]|\\.)*)"(?!\S)|([^\s"]*)(?!\S))|(\S+)')
_KEY = re.compile(r"[A-Za-z_@][\w.@/-]*=", re.ASCII)
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
        # The counts bound the depth and cost little; only texts that exceed it are examined.
        if text.count("{") + text.count("[") > _MAX_DEPTH and strict_json.is_deeper(
            text.encode(), _MAX_DEPTH
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
        # Taking the fields removes them, and without a message the event shows all of them.
        original = body.copy()
        if body.get("event_type") == "system_log":
            del body["event_type"]
        level, message, source, timestamp = self._mapping.take(body)
        if message is None:
            return level, orjson.dumps(original).decode(), source, timestamp, {}
        nested = body.pop("metadata", None)
        if isinstance(nested, dict):
            body = {**nested, **body}
        elif nested is not None:
            body["metadata"] = nested
        return level, message, source, timestamp, body


class LogfmtReader:
    """Reader of ``name=value`` lines, in which values with spaces are in double quotes."""

    def __init__(self, mapping: FieldMapping) -> None:
        self._mapping = mapping

    def read(self, text: str, sanitize: Sanitizer | None = None) -> Fields | None:
        """Read a line of two or more pairs and nothing else; further lines belong to the message."""
        if _KEY.match(text) is None:
            return None
        line, _, rest = text.partition("\n")
        body: dict[str, Any] = {}
        count = 0
        for name, quoted, bare, unmatched in _PAIR.findall(line):
            if unmatched:
                return None
            count += 1
            body[name] = bare or (_unescape(quoted) if "\\" in quoted else quoted)
        if count < 2:
            return None
        if sanitize is not None:
            body = sanitize(body)
            line = sanitize(line)
            rest = sanitize(rest)
        level, message, source, timestamp = self._mapping.take(body)
        if message is None:
            message, body = line, {}
        if rest:
            message = f"{message}\n{rest}"
        return level, message, source, timestamp, body


def _unescape(text: str) -> str:
    return _ESCAPE.sub(_unescape_match, text)


def _unescape_match(match: re.Match[str]) -> str:
    code = match[1]
    if len(code) == 5:
        character = chr(int(code[1:], 16))
        # A lone surrogate is not a character.
        return "\ufffd" if "\ud800" <= character <= "\udfff" else character
    return _ESCAPES.get(code, code)
