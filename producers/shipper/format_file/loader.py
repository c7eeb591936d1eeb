"""Format file: TOML with a table for each format of the user, validated completely before it is used.

Invariant: a rejected file is reported with all its problems, each with its line, key and what to do.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from tickertape.producers.shipper.files.globs import pattern_of
from tickertape.producers.shipper.files.rotation import base_of
from tickertape.producers.shipper.parsing.own_formats.own_format import (
    FormatProblem,
    FormatTable,
    OwnFormat,
    compile_format,
)

from tickertape.config.config_file import ConfigFile, read_config
from tickertape.config.names import did_you_mean
from tickertape.errors import ConfigurationError

TABLE: Final = "formats"
"""Name of the table of all formats."""

MAX_FORMATS: Final = 50
"""Maximum number of formats, each of which may be tried for each event."""

_EXPECTED: Final = {
    "string_type": "a string",
    "list_type": "a list of strings",
    "dict_type": 'a table such as { E = "ERROR" }',
    "model_type": "a table",
    "model_attributes_type": "a table",
}


class FormatFileError(ConfigurationError):
    """Error in a format file.

    Args:
        problems: all problems of the file, at least one.
    """

    def __init__(self, path: Path, problems: list[ConfigurationError]) -> None:
        first, more = problems[0], len(problems) - 1
        hint = first.hint
        if more:
            hint += f" (and {more} more; 'tickertape check --shipper-format-file {path}' lists them)"
        super().__init__(first.message, hint)
        self.problems = problems


def load_formats(path: Path) -> tuple[OwnFormat, ...]:
    """Load and validate a format file.

    Raises:
        ConfigurationError: the file cannot be read, or is not TOML.
        FormatFileError: it has invalid tables or keys.
    """
    file = read_config(path, "format file", "--format-file")
    problems = list(_find_unknown_names(file))
    formats = []
    for name, body in file.tables.get(TABLE, {}).items():
        try:
            table = FormatTable.model_validate(body)
            _check_files(table.files)
            formats.append(compile_format(name, table))
        except ValidationError as error:
            details = error.errors(include_url=False, include_input=False)
            # A misspelt key is missing as well.
            is_misspelt = any(each["type"] == "extra_forbidden" for each in details)
            problems += [
                _describe(file, name, each)
                for each in details
                if not (is_misspelt and each["type"] == "missing")
            ]
        except FormatProblem as problem:
            parts = [TABLE, name, *filter(None, [problem.key])]
            problems.append(file.error(problem.message, *parts))
    if problems:
        raise FormatFileError(path, problems)
    return tuple(formats)


def select_formats(formats: Iterable[OwnFormat], path: str) -> tuple[OwnFormat, ...]:
    """Return the formats that apply to a file, in their order.

    Args:
        formats: all formats.
        path: absolute path of the file; ``-`` for standard input.
    """
    # A rotated file has the formats of its log.
    paths = {path, base_of(path) or path}
    return tuple(
        each
        for each in formats
        if not each.files or any(_matches(glob, name) for glob in each.files for name in paths)
    )


def _matches(glob: str, path: str) -> bool:
    return pattern_of([glob]).fullmatch(path if "/" in glob else os.path.basename(path)) is not None


def _check_files(files: Iterable[str]) -> None:
    """Check the globs of a format.

    Raises:
        FormatProblem: one of them is invalid.
    """
    for glob in files:
        if "/" in glob and not os.path.isabs(glob):
            raise FormatProblem(
                "files", f"{glob!r} is a relative path; write an absolute one, or a name without slashes"
            )
        try:
            pattern_of([glob])
        except re.error:
            raise FormatProblem("files", f"{glob!r} is not a glob; check its brackets") from None


def _find_unknown_names(file: ConfigFile) -> Iterator[ConfigurationError]:
    for name in [*file.shared, *file.tables]:
        if name == TABLE and name in file.shared:
            yield file.error("is not a table; write [formats.NAME]", name)
        elif name != TABLE:
            guess = did_you_mean(name, [TABLE]) or f"; write [{TABLE}.NAME]"
            yield file.error(f"unknown {'table' if name in file.tables else 'key'}{guess}", name)
    count = len(file.tables.get(TABLE, {}))
    if not count and TABLE not in file.shared:
        yield ConfigurationError(
            f"{file.path}: has no format", f"write a table [{TABLE}.NAME] with a pattern"
        )
    if count > MAX_FORMATS:
        yield file.error(f"has {count} formats; write at most {MAX_FORMATS}", TABLE)


def _describe(file: ConfigFile, name: str, details: ErrorDetails) -> ConfigurationError:
    """Return the error for a key that the model rejects."""
    keys = [str(part) for part in details["loc"]]
    # Entries of lists have no line of their own.
    parts = [TABLE, name, *keys[:1]]
    kind = details["type"]
    if kind == "missing":
        return file.error(
            f"has no {keys[0]}; write {keys[0]} = '...' with the expression of a line", *parts[:2]
        )
    if kind == "extra_forbidden":
        known = FormatTable.model_fields
        guess = did_you_mean(keys[0], known) or f"; the keys are {', '.join(known)}"
        return file.error(f"unknown key{guess}", *parts)
    expected = _EXPECTED.get(kind)
    if expected is not None:
        of = " in the list" if len(keys) > 1 and keys[1].isdigit() else f" of {keys[1]}" if keys[1:] else ""
        hint = "write it in quotes" if "string" in expected else "correct it"
        return file.error(f"expected {expected}{of}; {hint}", *parts)
    context: dict[str, Any] = details.get("ctx", {})
    if kind == "string_too_short":
        return file.error("is empty; write a value, or remove the key", *parts)
    if kind == "string_too_long":
        return file.error(f"has more than {context['max_length']} characters; shorten it", *parts)
    return file.error(str(details["msg"]), *parts)
