"""The demo's child processes: each started with its output in a file, watched, and stopped.

Invariants:

1. A child dies with the demo, however that dies (Linux), and never hears the terminal's Ctrl-C.
2. After ``stop`` there is no process, and ``start`` makes no new one.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tickertape.process import child

LAST_BYTES: Final = 8 * 1024
"""Bytes at the end of a child's output that are looked at when it has died."""


class Child:
    """One child process.

    Args:
        name: for people, and for the file of its output.
        arguments: for this Python, such as ``-m tickertape serve``.
        output: folder of the files of output.
        grace: seconds that it has to stop before it is killed.
    """

    def __init__(self, name: str, arguments: Sequence[str], output: Path, grace: float = 6.0) -> None:
        self.name = name
        self.output = output / f"{name}.txt"
        self._arguments = arguments
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False
        self._changing = asyncio.Lock()
        self.output.write_bytes(b"")

    def __repr__(self) -> str:
        return f"<Child {self.name} {self._process}>"

    async def start(self) -> None:
        """Start it, or start it again after it has ended; does nothing once it was stopped."""
        async with self._changing:
            if self._stopped:
                return
            with self.output.open("ab") as output:
                self._process = await child.start(
                    sys.executable, *self._arguments, output=output, environment=_environment()
                )

    async def wait(self) -> int:
        """Wait for its end; return the exit code, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> bool:
        """End it; return False when it had to be killed."""
        async with self._changing:
            self._stopped = True
            return self._process is None or await child.stop(self._process, self._grace)

    def last_lines(self, count: int) -> list[str]:
        """The end of its output."""
        with self.output.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - LAST_BYTES))
            text = output.read().decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()][-count:]


def _environment() -> dict[str, str]:
    # Settings of another installation are not for the demo, which says all it needs on the command line.
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith("TICKERTAPE_")}
    return {**kept, "PYTHONUNBUFFERED": "1"}
