"""Problems of a monitor's file: the place, what is wrong, and what to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tickertape.errors import ConfigurationError

MAX_NAME_LENGTH: Final = 80
"""Characters of a key in the path of a field."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem in a file.

    Attributes:
        line: line number from 1; 0 for a problem of the whole file.
        field: path of the setting, such as ``gateways[0].probes[1].url``; may be empty.
        message: what is wrong.
        hint: what to do.
    """

    path: Path
    line: int
    field: str
    message: str
    hint: str

    def __str__(self) -> str:
        return f"{self.text}; {self.hint}"

    @property
    def text(self) -> str:
        """Place and message, without the hint."""
        location = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{location}: {self.field}: {self.message}" if self.field else f"{location}: {self.message}"


class MonitorFileError(ConfigurationError):
    """Error in a monitor's file.

    Args:
        problems: all problems of the file, at least one.
    """

    def __init__(self, problems: list[Problem]) -> None:
        others = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            f"{problems[0]}{others}", f"'tickertape check {problems[0].path}' lists every problem"
        )
        self.problems = problems


def field_path(location: tuple[int | str, ...]) -> str:
    """Return the path of a setting as text, such as ``gateways[0].id``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part[:MAX_NAME_LENGTH]}" for part in location)
    return "".join(parts).removeprefix(".")
