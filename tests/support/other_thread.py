"""Changes of another thread, at every moment at which the interpreter may switch to it."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any


@contextmanager
def changing(*tables: dict[Any, Any]) -> Iterator[None]:
    """Add entries to dictionaries whenever Python code could run in the middle of what is tested.

    The garbage collector runs Python code (callbacks and finalizers), and so lets other threads run, when an
    object is allocated; with this threshold, it does so almost each time. New entries have the value of the
    first one.
    """
    numbers = count()

    def add(phase: str, info: object) -> None:
        for table in tables:
            table[f"added {next(numbers)}"] = next(iter(table.values()), 1)

    threshold = gc.get_threshold()
    gc.callbacks.append(add)
    gc.set_threshold(1)
    try:
        yield
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(add)
