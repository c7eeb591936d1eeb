"""Decoder of OpenTelemetry's log requests in protobuf: the wire format, and the few messages that are needed.

Invariants:

1. Any bytes are decoded or raise ``WireError``; every length is checked before it is used.
2. Memory and time are bounded: a request has ``MAX_FIELDS`` fields at most, and a value ``MAX_DEPTH`` levels.
3. Unknown fields are ignored, so newer senders are understood. Text that is not UTF-8 keeps its place, with
   replacement characters.
"""

import base64
import math
import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tickertape.errors import TickertapeError

MAX_FIELDS: Final = 500_000
"""Fields of a request, each of which becomes an object of a hundred bytes or more."""

MAX_DEPTH: Final = 32
"""Levels of a value; an event has no more."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIGN: Final = 1 << 63
_UINT64: Final = 1 << 64
_SMALLEST, _LARGEST = -(10**17), 10**18
"""Integers between them are numbers in an event; others are text, as in OpenTelemetry's JSON."""


class WireError(TickertapeError, ValueError):
    """Request that is not valid protobuf."""


class TooManyFields(WireError):
    """Request with more fields than are decoded."""


class TooDeep(WireError):
    """Value with more levels than an event has."""


class WireRecord(NamedTuple):
    """Log record of a request.

    Attributes:
        fields: its fields, as OpenTelemetry's JSON names them, with plain values.
        resource: attributes of its resource.
        scope: fields of its scope.
    """

    fields: dict[str, Any]
    resource: Any
    scope: dict[str, Any]


class RequestDecoder:
    """Decoder of one ``ExportLogsServiceRequest``.

    Args:
        data: the request.

    Attributes:
        rejected: records that are too deep.
        replaced: texts with bytes that are not UTF-8.
    """

    def __init__(self, data: bytes) -> None:
        self.rejected = 0
        self.replaced = 0
        self._data = data
        self._left = MAX_FIELDS

    def records(self) -> Iterator[tuple[int, WireRecord]]:
        """Yield the records that can be events, with their number in the request.

        Raises:
            WireError: the request is not valid.
        """
        number = -1
        for tag, logs in self._split(self._data):
            if tag != 0x0A:
                continue
            resource: Any = {}
            scopes = []
            for inner, value in self._split(logs):
                if inner == 0x0A:
                    resource = self._attributes([v for t, v in self._split(value) if t == 0x0A], 0)
                elif inner == 0x12:
                    scopes.append(value)
            for value in scopes:
                scope, records = self._scope_logs(value)
                for record in records:
                    number += 1
                    try:
                        fields = self._record(record)
                    except TooDeep:
                        self.rejected += 1
                        continue
                    yield number, WireRecord(fields, resource, scope)

    def _scope_logs(self, data: bytes) -> tuple[dict[str, Any], list[bytes]]:
        scope: dict[str, Any] = {}
        records = []
        for tag, value in self._split(data):
            if tag == 0x12:
                records.append(value)
            elif tag == 0x0A:
                attributes = []
                for inner, item in self._split(value):
                    if inner == 0x0A and item:
                        scope["name"] = self._text(item)
                    elif inner == 0x12 and item:
                        scope["version"] = self._text(item)
                    elif inner == 0x1A:
                        attributes.append(item)
                if attributes:
                    scope["attributes"] = self._attributes(attributes, 0)
        return scope, records

    def _record(self, data: bytes) -> dict[str, Any]:
        record: dict[str, Any] = {}
        attributes = []
        for tag, value in self._split(data):
            if tag == 0x32:
                attributes.append(value)
            elif tag == 0x2A:
                record["body"] = self._value(value, 0)
            elif tag in _TEXTS:
                if value:
                    record[_TEXTS[tag]] = self._text(value)
            elif tag in _TIMES:
                if value:
                    record[_TIMES[tag]] = str(value)
            elif tag in _NUMBERS:
                if value:
                    record[_NUMBERS[tag]] = value
            elif tag in _IDS and value:
                record[_IDS[tag]] = value.hex()
        if attributes:
            record["attributes"] = self._attributes(attributes, 0)
        return record

    def _attributes(self, pairs: list[bytes], depth: int) -> Any:
        """Return keys and values as an object; as a list if a key is repeated."""
        found = []
        for pair in pairs:
            key = ""
            value: Any = None
            for tag, item in self._split(pair):
                if tag == 0x0A:
                    key = self._text(item)
                elif tag == 0x12:
                    value = self._value(item, depth)
            found.append((key, value))
        attributes = dict(found)
        if len(attributes) < len(found):
            return [{"key": key, "value": value} for key, value in found]
        return attributes

    def _value(self, data: bytes, depth: int) -> Any:
        """Return what an ``AnyValue`` holds."""
        if depth >= MAX_DEPTH:
            raise TooDeep(f"a value has more than {MAX_DEPTH} levels")
        held: Any = None
        for tag, value in self._split(data):
            if tag == 0x0A:
                held = self._text(value)
            elif tag == 0x18:
                held = value - _UINT64 if value >= _SIGN else value
                if not _SMALLEST < held < _LARGEST:
                    held = str(held)
            elif tag == 0x10:
                held = value != 0
            elif tag == 0x21:
                number = struct.unpack("<d", struct.pack("<Q", value))[0]
                held = number if math.isfinite(number) else _NOT_FINITE.get(number, "NaN")
            elif tag == 0x2A:
                items = [item for inner, item in self._split(value) if inner == 0x0A]
                held = [self._value(item, depth + 1) for item in items]
            elif tag == 0x32:
                held = self._attributes([v for t, v in self._split(value) if t == 0x0A], depth + 1)
            elif tag == 0x3A:
                held = base64.b64encode(value).decode()
        return held

    def _text(self, data: bytes) -> str:
        try:
            return data.decode()
        except UnicodeDecodeError:
            self.replaced += 1
            return data.decode("utf-8", "replace")

    def _split(self, data: bytes) -> list[tuple[int, Any]]:
        """Return the fields of a message with their tags: bytes for a length, else a number."""
        fields: list[tuple[int, Any]] = []
        position, end, left = 0, len(data), self._left
        try:
            while position < end:
                tag = data[position]
                position += 1
                if tag >= 0x80:
                    tag, position = _varint(data, position - 1)
                kind = tag & 7
                value: Any
                if kind == _BYTES:
                    size = data[position]
                    position += 1
                    if size >= 0x80:
                        size, position = _varint(data, position - 1)
                    value = data[position : position + size]
                    position += size
                elif kind == _VARINT:
                    value, position = _varint(data, position)
                elif kind == _FIXED64:
                    value = int.from_bytes(data[position : position + 8], "little")
                    position += 8
                elif kind == _FIXED32:
                    value = int.from_bytes(data[position : position + 4], "little")
                    position += 4
                else:
                    raise WireError("a field has an unknown type")
                if tag < 8:
                    raise WireError("a field has no number")
                fields.append((tag, value))
                left -= 1
                if left < 0:
                    raise TooManyFields(f"the request has more than {MAX_FIELDS} fields")
        except IndexError:
            position = end + 1
        if position > end:
            raise WireError("the request ends within a field")
        self._left = left
        return fields


_TEXTS: Final = {0x1A: "severityText", 0x62: "eventName"}
_TIMES: Final = {0x09: "timeUnixNano", 0x59: "observedTimeUnixNano"}
_NUMBERS: Final = {0x10: "severityNumber", 0x38: "droppedAttributesCount", 0x45: "flags"}
_IDS: Final = {0x4A: "traceId", 0x52: "spanId"}
_NOT_FINITE: Final = {math.inf: "Infinity", -math.inf: "-Infinity"}


def _varint(data: bytes, position: int) -> tuple[int, int]:
    """Return a number of variable length, and the position after it."""
    number = shift = 0
    while True:
        byte = data[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number % _UINT64, position
        shift += 7
        if shift > 63:
            raise WireError("a number has more than ten bytes")
