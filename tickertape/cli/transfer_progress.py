"""Progress of a transfer: a line that changes on a terminal, and otherwise a line now and then."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from tickertape.process.console import is_terminal, print_notice
from tickertape.process.terminal import Terminal
from tickertape.text import mib

LINE_INTERVAL: Final = 10.0
"""Seconds between two lines where standard error is no terminal."""

REFRESH_INTERVAL: Final = 0.1
"""Seconds between two changes of the line on a terminal."""


class TransferProgress:
    """Display of the steps of a command, one at a time.

    Args:
        program: name of the command.
    """

    def __init__(self, program: str) -> None:
        self._program = program
        self._shown_at = time.monotonic()
        self._display: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, step: str, total: int) -> Callable[[int], None]:
        """Start a step, and return a function that receives the bytes done so far.

        Args:
            step: what is done, to what.
            total: expected bytes; an estimate.
        """
        if is_terminal():
            if self._display is None:
                self._display = _display()
                self._display.start()
            else:
                self._display.remove_task(self._task)
            self._task = self._display.add_task(step, total=max(1, total))

        def update(done: int) -> None:
            now = time.monotonic()
            if self._display is not None:
                # Without a thread of its own, so that it changes no oftener than this.
                refresh = now - self._shown_at > REFRESH_INTERVAL
                self._display.update(self._task, completed=min(done, total), refresh=refresh)
                self._shown_at = now if refresh else self._shown_at
            elif now - self._shown_at > LINE_INTERVAL:
                self._shown_at = now
                print_notice(self._program, f"{step}: {describe(done, total)}")

        return update

    def stop(self) -> None:
        """Remove the line from the terminal."""
        if self._display is not None:
            self._display.stop()
            self._display = None


def describe(done: int, total: int) -> str:
    """Return bytes and percentage; what exceeds the expected bytes counts as nearly done."""
    percent = min(99, done * 100 // total) if total and done < total else 100 if done == total else 99
    return f"{mib(done, 1)}, {percent} %"


def _display() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %", markup=False),
        DownloadColumn(binary_units=True),
        TransferSpeedColumn(),
        console=Terminal(stderr=True),
        auto_refresh=False,
        transient=True,
    )


__all__ = ["TransferProgress", "describe"]
