"""``tickertape`` that prints its live objects by type and its asyncio tasks on each SIGUSR1.

Run by a test as ``python -m`` with ``serve ...``; the line begins with ``counts ``.

Invariants:

1. The program is unchanged: a separate thread counts, woken by a signal that all other threads block.
2. It counts only what survives a full collection, and nothing from before the relay was ready, which is
   frozen.
3. Nothing is in the cache of the stream while it counts, because how far clients lag depends on the machine.
"""

import gc
import signal
import threading
from collections import Counter
from typing import Any, Final

import orjson
from tickertape.relay.core.fanout import fanout
from tickertape.relay.core.replay_cache import ReplayCache

from tickertape.cli import main as cli

SIGNAL: Final = signal.SIGUSR1
PREFIX: Final = "counts "

_caches: list[ReplayCache[Any]] = []


class _KnownCache(ReplayCache[Any]):
    """Cache that is found although the collector does not show what is frozen."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        _caches.append(self)


def name(kind: type) -> str:
    """Return a type's name with its module."""
    return f"{kind.__module__}.{kind.__qualname__}"


def count() -> dict[str, int]:
    """Count the live objects that the collector tracks, by type; asyncio tasks only if they are pending."""
    for cache in _caches:
        cache.clear()
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
    vars(fanout)["ReplayCache"] = _KnownCache
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
    threading.Thread(target=_answer, daemon=True).start()
    cli.main()
