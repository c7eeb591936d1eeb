"""How a program runs its work."""

import asyncio
from collections.abc import Coroutine
from typing import Any


def run_async(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work on the fastest event loop that there is."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
