"""Styled output for the operator; see the invariant of ``console``."""

from collections.abc import Iterable
from typing import Any, Final

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tickertape.text import printable_lines

LEVEL_STYLES: Final = {
    "DEBUG": "dim",
    "INFO": "cyan",
    "WARN": "yellow",
    "ERROR": "red",
    "CRITICAL": "bold white on red",
}
"""Styles of the levels of events."""


class Terminal(Console):
    """Console that takes no text for markup, and writes no control characters except those of its own styles.

    Args:
        options: keyword arguments of ``rich.console.Console``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Return the segments of an object, with escaped text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable_lines(segment.text))
