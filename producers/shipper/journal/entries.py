"""Entries of the journal, as ``journalctl --output=json`` prints them, and the lines that are made of them.

The fields of an entry are described in systemd.journal-fields(7), their form in JSON by systemd's "Journal
JSON Format": a value is a string, an array of numbers if its bytes are not text, an array of values if the
field is repeated, and null if it is too large.
"""

from typing import Any, Final, NamedTuple

import orjson
from tickertape.contracts.subjects import LEVELS
from tickertape.producers.shipper.encodings.text_decoder import decode_text
from tickertape.producers.shipper.parsing.container_formats import ContainerLine

_SEVERITIES: Final = ("CRITICAL", "CRITICAL", "CRITICAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")
"""Level of each priority, from "emerg" (0) to "debug" (7)."""

_DEFAULT_PRIORITY: Final = 6
"""Priority of every line that a service prints, unless its unit sets another one."""

_RENAMED: Final = {
    "_SYSTEMD_UNIT": "unit",
    "_SYSTEMD_USER_UNIT": "user_unit",
    "_HOSTNAME": "host",
    "_PID": "pid",
    "_TRANSPORT": "transport",
}
"""Fields of the journal itself that events contain, and their names there."""

_OMITTED: Final = frozenset(
    {
        "MESSAGE",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "SYSLOG_FACILITY",
        "SYSLOG_TIMESTAMP",
        "SYSLOG_RAW",
        "SYSLOG_PID",
    }
)
"""Fields of programs that metadata does not repeat."""

_NUMBERS: Final = frozenset({"pid", "code_line", "errno"})


class Entry(NamedTuple):
    """Entry of the journal.

    Attributes:
        cursor: position of the entry, which ``journalctl --cursor`` takes.
        line: what it says.
        size: bytes of its JSON form.
    """

    cursor: str
    line: ContainerLine
    size: int


def read_entry(data: bytes) -> Entry:
    """Read a line of ``journalctl --output=json``.

    Raises:
        ValueError: it is not an entry.
    """
    body = orjson.loads(data)
    if not isinstance(body, dict) or not isinstance(cursor := body.get("__CURSOR"), str):
        raise ValueError("not an entry of the journal")
    fields = {name: value for name, raw in body.items() if (value := _value(raw)) is not None}
    message = fields.get("MESSAGE", "")
    unit = fields.get("_SYSTEMD_UNIT") or fields.get("_SYSTEMD_USER_UNIT") or ""
    source = fields.get("SYSLOG_IDENTIFIER") or unit.removesuffix(".service") or fields.get("_COMM")
    # The lines of a traceback are entries of one process.
    stream = f"{unit} {fields.get('_PID', '')} {fields.get('SYSLOG_IDENTIFIER', '')}"
    metadata = _metadata(fields)
    if "\ufffd" in message and isinstance(body["MESSAGE"], list):
        metadata["replaced_characters"] = True
    line = ContainerLine(
        stream, message, is_partial=False, time=_time(fields), source=source, metadata=metadata,
        level=_level(fields),
    )  # fmt: skip
    return Entry(cursor, line, len(data))


def is_same(cursor: str, other: str) -> bool:
    """Return whether two cursors are those of one entry, which may be in several files of the journal."""
    return _identity(cursor) == _identity(other)


def _identity(cursor: str) -> set[str]:
    # Boot, monotonic and real time, and a hash of the content.
    return {part for part in cursor.split(";") if part[:2] in ("b=", "m=", "t=", "x=")}


def _value(raw: Any) -> str | None:
    """Return a field as text; None if it has no value."""
    if isinstance(raw, str):
        return raw
    if not isinstance(raw, list):
        return None
    if all(type(item) is int and 0 <= item < 256 for item in raw):
        return decode_text(bytes(raw))
    return "\n".join(text for item in raw if (text := _value(item)) is not None)


def _time(fields: dict[str, str]) -> str | None:
    # When the program wrote it, if that is known, else when the journal received it.
    return fields.get("_SOURCE_REALTIME_TIMESTAMP") or fields.get("__REALTIME_TIMESTAMP")


def _level(fields: dict[str, str]) -> str | None:
    """Return the level by the priority, unless it is only the default of all that a service prints."""
    text = fields.get("PRIORITY", "")
    if len(text) != 1 or not "0" <= text <= "7":
        return None
    priority = int(text)
    if priority == _DEFAULT_PRIORITY and fields.get("_TRANSPORT") == "stdout":
        return None
    level = _SEVERITIES[priority]
    assert level in LEVELS
    return level


def _metadata(fields: dict[str, str]) -> dict[str, Any]:
    metadata: dict[str, Any] = {}
    for field, value in fields.items():
        name = _RENAMED.get(field)
        if name is None:
            if field[:1] == "_" or field in _OMITTED:
                continue
            name = field.lower()
        # A field of a program does not replace one that the journal vouches for.
        if field in _RENAMED or name not in metadata:
            is_number = name in _NUMBERS and value.isascii() and value.isdigit() and len(value) < 16
            metadata[name] = int(value) if is_number else value
    return metadata
