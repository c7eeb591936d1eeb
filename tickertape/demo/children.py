"""Child processes of the demo: starting, restarting and stopping them, with their output in files.

Invariants:

1. On Linux, a child dies with the demo, even if the demo is killed, and never receives the terminal's Ctrl-C.
2. After ``stop``, no process runs, and ``start`` does not create a new one.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tickertape.config.resolve import CREDENTIALS
from tickertape.process import child
from tickertape.validation import is_setting

TAIL_BYTES: Final = 8 * 1024
"""Number of bytes that ``last_lines`` reads at the end of the output file."""


class Child:
    """Child process that can be restarted.

    Args:
        name: name of the child, shown to the user and used for the output file.
        arguments: arguments for this Python interpreter, such as ``-m tickertape serve``.
        output: folder of the output files.
        grace: seconds that the process has to stop before it is killed.
    """

    def __init__(self, name: str, arguments: Sequence[str], output: Path, grace: float = 6.0) -> None:
        self.name = name
        self.output = output / f"{name}.txt"
        self._arguments = arguments
        self._grace = grace
        self._process: asyncio.subprocess.Process | None = None
        self._stopped = False
        self._lock = asyncio.Lock()
        self.output.write_bytes(b"")

    def __repr__(self) -> str:
        return f"<Child {self.name} {self._process}>"

    async def start(self) -> None:
        """Start the process, or restart it after it has exited; do nothing after ``stop``."""
        async with self._lock:
            if self._stopped:
                return
            with self.output.open("ab") as output:
                self._process = await child.start(
                    sys.executable, *self._arguments, output=output, environment=_environment()
                )

    async def wait(self) -> int:
        """Wait for the process to exit; return its exit code, negative for a signal."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> bool:
        """Stop the process permanently; return False if it had to be killed."""
        async with self._lock:
            self._stopped = True
            return self._process is None or await child.stop(self._process, self._grace)

    def kill(self) -> None:
        """Kill the process, if it runs; it is not restarted once ``stop`` is called."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()

    def last_lines(self, count: int) -> list[str]:
        """Return the last non-empty lines of the output."""
        with self.output.open("rb") as output:
            size = output.seek(0, os.SEEK_END)
            output.seek(max(0, size - TAIL_BYTES))
            text = output.read().decode("utf-8", "replace")
        return [line for line in text.splitlines() if line.strip()][-count:]


def _environment() -> dict[str, str]:
    # The demo passes every setting on the command line; those of another installation must not leak in.
    kept = {name: value for name, value in os.environ.items() if not is_setting(name) and name != CREDENTIALS}
    return {**kept, "PYTHONUNBUFFERED": "1"}
