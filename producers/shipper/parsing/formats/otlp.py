"""Requests of OpenTelemetry, as the file exporter of its collector writes them: a line with many log records.

Invariants:

1. Each record is an event; what the records of a resource or scope share is in the metadata of each.
2. No value is lost: what has not the form that OpenTelemetry prescribes stays as it is.
"""

from collections.abc import Iterator
from typing import Any, Final

import orjson
from tickertape.producers.shipper.parsing.formats.fields import FieldMapping, Fields

MAX_RECORDS: Final = 800
"""Records of a line that are events of their own: they are one commit, which has at most 1 000."""

_SCALARS: Final = ("stringValue", "boolValue", "doubleValue", "bytesValue")


class Records(dict[str, Any]):
    """Metadata of a line whose records are events.

    Attributes:
        fields: fields of each record.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: list[Fields]) -> None:
        super().__init__()
        self.fields = fields


def read_records(body: dict[str, Any], mapping: FieldMapping) -> Fields | None:
    """Read a request; return None if it has no record, or too many, and then its line is one event."""
    found = list(read_json(body, mapping))
    if not 0 < len(found) <= MAX_RECORDS or None in found:
        return None
    return None, "", None, None, Records([each for each in found if each is not None])


def read_json(body: dict[str, Any], mapping: FieldMapping) -> Iterator[Fields | None]:
    """Yield the fields of each record of a request; None for what is no record."""
    for resource in _objects(body.get("resourceLogs")):
        about = _attributes(_object(resource.get("resource")).get("attributes"))
        service = about.get("service.name") if isinstance(about, dict) else None
        for scope in _objects(resource.get("scopeLogs")):
            shared = shared_metadata(about, scope.get("scope"))
            records = scope.get("logRecords")
            for record in records if isinstance(records, list) else []:
                yield _read_record(record, service, mapping, shared) if isinstance(record, dict) else None


def shared_metadata(resource: object, scope: object) -> dict[str, Any]:
    """Return the metadata that the records of a scope share."""
    return {**({"resource": resource} if resource else {}), **({"scope": scope} if scope else {})}


def _read_record(
    record: dict[str, Any], service: object, mapping: FieldMapping, shared: dict[str, Any]
) -> Fields:
    record = record.copy()
    for key, read in (("body", _value), ("attributes", _attributes)):
        if key in record:
            record[key] = read(record[key])
    return map_record(record, service, mapping, shared)


def map_record(
    record: dict[str, Any], service: object, mapping: FieldMapping, shared: dict[str, Any]
) -> Fields:
    """Return the fields of a record with plain values.

    Args:
        record: the record, which is changed.
        service: name of the service.
        mapping: mapping from keys to fields.
        shared: metadata of its resource and scope.
    """
    if service is not None:
        record = {"service": service, **record}
    level, message, source, timestamp = mapping.take(record)
    if message is None:
        message = orjson.dumps(record.pop("body", record)).decode()
    return level, message, source, timestamp, {**shared, **record}


def _attributes(value: object) -> Any:
    """Return a list of keys and values as an object; return any other value as it is."""
    pairs = _objects(value)
    names = [pair.get("key") for pair in pairs]
    if not isinstance(value, list) or len(pairs) != len(value) or len(set(map(str, names))) != len(names):
        return value if value is not None else {}
    if not all(isinstance(name, str) for name in names):
        return value
    return {name: _value(pair.get("value")) for name, pair in zip(names, pairs, strict=True)}


def _value(value: object) -> Any:
    """Return what an ``AnyValue`` holds; return any other value as it is."""
    if not isinstance(value, dict) or len(value) != 1:
        return value
    kind, held = next(iter(value.items()))
    if kind in _SCALARS:
        return held
    if kind == "intValue":
        is_number = isinstance(held, str) and held.isascii() and held.removeprefix("-").isdecimal()
        return int(held) if is_number and len(held) < 19 else held
    if kind == "arrayValue" and isinstance(held, dict) and isinstance(held.get("values"), list):
        return [_value(each) for each in held["values"]]
    return _attributes(held.get("values")) if kind == "kvlistValue" and isinstance(held, dict) else value


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
