"""``tickertape`` that prints its live objects by type and its asyncio tasks on each SIGUSR1.

Run by a test as ``python -m`` with ``serve ...``; the line begins with ``counts ``.

Invariants:

1. The program is unchanged: a separate thread counts, woken by a signal that all other threads block.
2. It counts only what survives a full collection, and nothing from before the relay was ready, which is
   frozen.
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
    """Return a type's name with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def count() -> dict[str, int]:
    """Count the live objects that the collector tracks, by type; asyncio tasks only if they are pending."""
    gc.collect()
    found = Counter(name(type(one)) for one in gc.get_objects())
    found["tasks"] = sum(
        name(type(one)) == "_asyncio.Task" and not one.done() for one in gc.get_objects()
    )  # in whatever thread their loop runs
    return dict(found)


def _answer() -> None:
    while True:
        signal.sigwait({SIGNAL})
        print(PREFIX + orjson.dumps(count()).decode(), flush=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    threading.Thread(target=_answer, daemon=True).start()
    cli.main()
