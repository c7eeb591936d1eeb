"""Configuration file: TOML with shared settings first, and a table for each command.

Invariants:

1. No error contains a value, because values may be secrets.
2. Errors name the file, and the line if it can be determined.
3. Reading it neither blocks nor exceeds ``MAX_BYTES``.
"""

import re
import stat
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tickertape.errors import ConfigurationError
from tickertape.process.files import read_regular_file

MAX_BYTES: Final = 1024 * 1024

SECRETS: Final = frozenset({"nats_password", "nats_token", "jwt_key", "token"})
"""Names of the settings that are secrets; each has a counterpart ``…_file``."""

_URL_PASSWORD: Final = re.compile(r"://[^/\s]*@")

_KEY: Final = r"[\w-]+|\"[^\"]*\"|'[^']*'"
_LINE: Final = re.compile(rf"\s*(?P<open>\[{{0,2}})\s*(?P<keys>(?:{_KEY})(?:\s*\.\s*(?:{_KEY}))*)\s*[\]=]")
"""Line that begins a table or a key, whose name may have several parts."""


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """Content of a configuration file.

    Attributes:
        path: path of the file.
        shared: settings before the first table.
        tables: settings by command.
        text: text of the file.
    """

    path: Path
    shared: dict[str, Any]
    tables: dict[str, dict[str, Any]]
    text: str

    def locate(self, *parts: str) -> str:
        """Return the file and the line of a table or key, as ``path:line``."""
        line = _find_line(self.text, parts)
        return f"{self.path}:{line}" if line else str(self.path)

    def error(self, message: str, *parts: str) -> ConfigurationError:
        """Return an error about a table or key.

        Args:
            message: what is wrong, and what to do after a semicolon.
            parts: name of the table, name of the key.
        """
        text, _, hint = message.partition("; ")
        return ConfigurationError(
            f"{self.locate(*parts)}: {'.'.join(parts)}: {text}", hint or "correct or remove it"
        )

    def secrets(self) -> list[str]:
        """Return the names of the settings that contain a secret."""
        return [
            key
            for table in (self.shared, *self.tables.values())
            for key, value in table.items()
            if key in SECRETS or any(_URL_PASSWORD.search(text) for text in _texts(value))
        ]

    def exposure(self) -> str | None:
        """Return an error if the file contains a secret that other users can read; None otherwise."""
        names = self.secrets()
        status = self.path.stat()
        # The group may read files of root, as for other files with secrets.
        others = stat.S_IROTH | (0 if status.st_uid == 0 else stat.S_IRGRP)
        if not names or not status.st_mode & others:
            return None
        return f"{self.path} contains {', '.join(sorted(set(names)))} and is readable by other users"


def read_config(path: Path, kind: str = "configuration file", option: str = "--config") -> ConfigFile:
    """Read a configuration file.

    Args:
        path: path of the file.
        kind: kind of the file for messages.
        option: option that names it.

    Raises:
        ConfigurationError: the file cannot be read, or is not valid.
    """
    if path.suffix in (".yaml", ".yml") and option == "--config":
        raise ConfigurationError(f"{kind} {path} is not TOML", "for the gateways of a monitor use --gateways")
    try:
        data, _ = read_regular_file(path, MAX_BYTES)
    except OSError as error:
        raise ConfigurationError(
            f"{kind} {path} cannot be read: {error.strerror}", f"check {option}"
        ) from None
    if len(data) > MAX_BYTES:
        raise ConfigurationError(f"{kind} {path} has more than {MAX_BYTES} bytes", f"check {option}")
    try:
        # Some editors begin a file with a byte order mark.
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigurationError(f"{path}:{line}: not UTF-8", "save the file as UTF-8") from None
    if not text.strip():
        # A file that a full disk or a failed write has emptied must not drop every restriction.
        raise ConfigurationError(f"{kind} {path} is empty", "write a setting or a comment into it")
    content = _parse(path, text)
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    shared = {key: value for key, value in content.items() if key not in tables}
    return ConfigFile(path, shared, tables, text)


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # Its text has the line, and no value.
        raise ConfigurationError(
            f"{path}: not valid TOML: {str(error)[:1].lower()}{str(error)[1:]}",
            'write each setting once, as name = "value"',
        ) from None
    except (ValueError, RecursionError):
        # Numbers with thousands of digits, and deeply nested values.
        raise ConfigurationError(
            f"{path}: not valid TOML: a value is too large", 'write name = "value"'
        ) from None


def _find_line(text: str, parts: tuple[str, ...]) -> int | None:
    lines = text.split("\n")
    table: list[str] = []
    for number, line in enumerate(lines):
        match = _LINE.match(line)
        if match is None:
            continue
        keys = [key.strip("\"'") for key in re.findall(_KEY, match["keys"])]
        found = keys if match["open"] else [*table, *keys]
        is_wanted = found[: len(parts)] == list(parts)
        if (match["open"] or is_wanted) and not _is_toml("\n".join(lines[:number])):
            continue
        if is_wanted:
            return number + 1
        if match["open"]:
            table = keys
    return None


def _is_toml(text: str) -> bool:
    """Return whether a text is complete, so that the line after it is not within a string."""
    try:
        tomllib.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _texts(value: Any) -> Iterator[str]:
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield item
