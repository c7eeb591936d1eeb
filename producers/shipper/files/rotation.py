"""File names that log rotation produces."""

import contextlib
import functools
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tickertape.contracts.subjects import SubjectError, escape
from tickertape.producers.shipper.content.compression import COMPRESSED
from tickertape.producers.shipper.files.globs import may_pass

from tickertape.text import escape_surrogates

MAX_SCANS: Final = 8
"""Attempts to find files while a rotation renames them."""

# Numbers and dates, as logrotate and the handlers of Python append them or put them before the extension.
_MARK: Final = r"[.-]\d[\d._T:-]*"
_MARKED: Final = re.compile(rf"(?P<name>.+?){_MARK}|(?P<stem>.+?){_MARK}(?P<extension>\.[A-Za-z]+)")
_NUMBER_DIGITS: Final = 4
"""Maximum number of digits of a number; more are a date."""

_DATED: Final = re.compile(r"[.-]\d{4}-?\d{2}-?\d{2}")


@functools.lru_cache(maxsize=1 << 16)
def base_of(path: str) -> str | None:
    """Return the path that a rotated file had before: app.log for app.log.1 and app-2026-01-01.log.

    None for a name that no rotation produces.
    """
    folder, name = os.path.split(path)
    match = _MARKED.fullmatch(name)
    if match is None:
        return None
    return os.path.join(folder, match["name"] or match["stem"] + match["extension"])


def is_later_rotation(path: str, *, than: str) -> bool | None:
    """Return whether a file was rotated later than another of the same log, judging by their names.

    Numbers grow with the age of files, and dates do not. None if the names have no such order.
    """
    marks = []
    for name in (path, than):
        stem, extension = os.path.splitext(name)
        stem = stem if extension in COMPRESSED else name
        base = base_of(stem)
        digits = re.findall(r"\d+", _marked_part(stem)) if base is not None else []
        marks.append((base, "".join(digits)))
    (base, mark), (other_base, other_mark) = marks
    if base != other_base or not mark or not other_mark or mark == other_mark:
        return None
    if len(mark) <= _NUMBER_DIGITS and len(other_mark) <= _NUMBER_DIGITS:
        return int(mark) < int(other_mark)
    return mark > other_mark if len(mark) == len(other_mark) else None


def _marked_part(path: str) -> str:
    """Return the part of a name that a rotation has added."""
    name = os.path.basename(path)
    match = _MARKED.fullmatch(name)
    if match is None:
        return ""
    start = match.end("name") if match["name"] else match.end("stem")
    return name[start:]


def source_of(path: str) -> str:
    """Return the name of a file without its extension and without rotation suffixes."""
    # A name that is not UTF-8 is not a subject, but its escaped form is unique to it.
    name = escape_surrogates(Path(base_of(path) or path).stem)
    try:
        escape(name)
    except SubjectError:
        return "file"
    return name


def names_of(path: str) -> tuple[str, ...]:
    """Return the path of a log, and where it leads if it is a symbolic link: rotation renames the target.

    Raises:
        OSError: the path cannot be read at the moment.
    """
    with ignore_lasting():
        if stat.S_ISLNK(os.lstat(path).st_mode):
            target = os.path.realpath(path)
            # A link to today's file of a series: those of the days before have had this name.
            series = base_of(target) if _DATED.search(target) else None
            return (path, target, series) if series else (path, target)
    return (path,)


@contextlib.contextmanager
def ignore_lasting() -> Iterator[None]:
    """Ignore errors that will not pass, such as a missing folder."""
    try:
        yield
    except OSError as error:
        if may_pass(error):
            raise
