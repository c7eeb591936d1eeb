"""``tickertape``, which at each SIGUSR1 prints what lives in it: objects by type, and tasks of asyncio.

Run by a test as ``python -m`` with ``serve ...``; the line begins with ``counts ``.

Invariants:

1. Nothing of the program is changed: another thread counts, woken by a signal that all others hold back.
2. Only what a full collection leaves is counted, and nothing from before the relay was ready: that is frozen.
"""

import gc
import signal
import threading
from collections import Counter
from typing import Final

import orjson

from tickertape.cli import main as cli

SIGNAL: Final = signal.SIGUSR1
PREFIX: Final = "counts "


def name(kind: type) -> str:
    """A type, with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def count() -> dict[str, int]:
    """Living objects that the collector tracks, by type; of asyncio's tasks those that are not done."""
    gc.collect()
    found = Counter(name(type(one)) for one in gc.get_objects())
    found["tasks"] = sum(
        name(type(one)) == "_asyncio.Task" and not one.done() for one in gc.get_objects()
    )  # whatever thread their loop runs in
    return dict(found)


def _answer() -> None:
    while True:
        signal.sigwait({SIGNAL})
        print(PREFIX + orjson.dumps(count()).decode(), flush=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    threading.Thread(target=_answer, daemon=True).start()
    cli.main()
