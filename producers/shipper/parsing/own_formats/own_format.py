"""Format of a user: the table of a format file, and what is compiled from it.

Invariant: only RE2 matches the lines of strangers with the expressions of a user.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field
from tickertape.contracts.subjects import LEVELS
from tickertape.producers.shipper.parsing.formats import FORMATS
from tickertape.producers.shipper.parsing.levels import level_of
from tickertape.producers.shipper.parsing.own_formats.times import NAMES, TimePattern
from tickertape.producers.shipper.redaction.names import kind_of_key

from tickertape.errors import TickertapeError
from tickertape.time_zones import parse_zone
from tickertape.user_regex import compile_pattern

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_DEFAULTS: Final = ("level", "message", "source")
_Text = Annotated[str, Field(min_length=1, max_length=4096)]


class FormatTable(BaseModel):
    """Table ``[formats.NAME]`` of a format file."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)

    pattern: _Text
    time: _Text = "auto"
    zone: _Text | None = None
    level: _Text = "level"
    levels: dict[str, str] = {}
    message: _Text = "message"
    source: _Text = "source"
    files: list[_Text] = []
    start: _Text | None = None


@dataclass(frozen=True, slots=True)
class OwnFormat:
    """Compiled format of a user.

    Attributes:
        name: name of its table.
        regex: RE2 expression that matches the complete first line of an event, as bytes of UTF-8.
        groups: names of its groups, and their numbers.
        time: format of the time, or one of ``times.NAMES``.
        zone: time zone of times that do not name one; None means that of the shipper.
        level: group of the level.
        levels: levels by the words of this format.
        message: group of the message.
        source: group of the source.
        secrets: groups whose names denote secrets, with their kinds.
        files: globs of the files that the format applies to; empty for all files.
        start: RE2 expression for the first line of an event, or None.
    """

    name: str
    regex: Any
    groups: Mapping[str, int]
    time: TimePattern | str
    zone: ZoneInfo | None
    level: str
    levels: Mapping[str, str]
    message: str
    source: str
    secrets: Mapping[str, str]
    files: tuple[str, ...]
    start: str | None


class FormatProblem(TickertapeError, ValueError):
    """Problem of one key of a format.

    Args:
        key: name of the key; empty for the whole table.
        message: what is wrong, and what to do after a semicolon.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(key, message)
        self.key = key
        self.message = message


def compile_format(name: str, table: FormatTable) -> OwnFormat:
    """Compile a format.

    Raises:
        FormatProblem: a key is invalid.
    """
    if name in FORMATS:
        raise FormatProblem("", "is the name of a built-in format; choose another one")
    if not _NAME.fullmatch(name):
        raise FormatProblem("", "is not a valid name; use 1 to 32 letters, digits, '_' and '-'")
    regex = _compile("pattern", table.pattern)
    if regex.fullmatch(b"") is not None:
        raise FormatProblem("pattern", "matches an empty line; require at least one character")
    by_number = sorted(regex.groupindex.items(), key=lambda item: item[1])
    groups = {group.decode(): number for group, number in by_number}
    if not groups:
        raise FormatProblem("pattern", "has no named group; write (?P<message>.*) for the message")
    _check_groups(table, groups)
    start = table.start
    if start is not None and _compile("start", start).search(b"") is not None:
        raise FormatProblem("start", "matches an empty line; it must match the first line of an event only")
    fields = {"time", table.level, table.message, table.source}
    kinds = {group: kind_of_key(group) for group in groups if group not in fields}
    return OwnFormat(
        name,
        regex,
        groups,
        _read_time(table.time),
        _read_zone(table.zone),
        table.level,
        _read_levels(table.levels),
        table.message,
        table.source,
        {group: kind for group, kind in kinds.items() if kind is not None},
        tuple(table.files),
        start,
    )


_UNSUPPORTED: Final = re.compile(r"\(\?<?[=!]|\\[1-9]")


def _compile(key: str, pattern: str) -> Any:
    try:
        return compile_pattern(pattern, "the expression", for_bytes=True)
    except ValueError as error:
        advice = "; RE2 has neither look-around nor back-references" if _UNSUPPORTED.search(pattern) else ""
        raise FormatProblem(key, f"{error}{advice}") from None


def _check_groups(table: FormatTable, groups: Mapping[str, int]) -> None:
    for key in _DEFAULTS:
        group = getattr(table, key)
        if key in table.model_fields_set and group not in groups:
            raise FormatProblem(
                key, f"{group!r} is not a group of the pattern; its groups are {', '.join(groups)}"
            )
        if group == "time":
            raise FormatProblem(key, "'time' is the group of the time; name another group")
    fields = [table.level, table.message, table.source]
    if len(set(fields)) < len(fields):
        raise FormatProblem("", "uses one group for two of level, message and source; name different groups")
    if "time" not in groups:
        for key in ("time", "zone"):
            if key in table.model_fields_set:
                raise FormatProblem(key, "the pattern has no group 'time'; write (?P<time>...) in it")
    if table.levels and table.level not in groups:
        raise FormatProblem(
            "levels", f"the pattern has no group {table.level!r}; write (?P<{table.level}>...) in it"
        )


def _read_time(text: str) -> TimePattern | str:
    if "%" in text:
        try:
            return TimePattern(text)
        except ValueError as error:
            raise FormatProblem("time", str(error)) from None
    if text in NAMES:
        return text
    raise FormatProblem(
        "time", f"{text!r} is not known; use {', '.join(NAMES)}, or directives such as %Y-%m-%d %H:%M:%S"
    )


def _read_zone(text: str | None) -> ZoneInfo | None:
    try:
        return parse_zone(text) if text is not None else None
    except ValueError as error:
        raise FormatProblem("zone", str(error)) from None


def _read_levels(levels: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for word, text in levels.items():
        level = level_of(text)
        if level is None:
            raise FormatProblem("levels", f"{text!r} is not a level; use one of {', '.join(LEVELS)}")
        found[word.strip()] = level
    return found
