"""What a program sets up in its own process: its log, and its event loop."""

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any


def configure_log() -> None:
    """Log to standard error, for people."""
    text = "%(asctime)s %(levelname)-7s %(message)s"
    logging.basicConfig(level=logging.INFO, format=text, stream=sys.stderr)
    # One line for each thing that matters; libraries speak up from warnings on.
    for library in ("uvicorn", "websockets", "nats", "asyncio"):
        logging.getLogger(library).setLevel(logging.ERROR)


def run_async(work: Coroutine[Any, Any, int]) -> int:
    """Run a command's work on the fastest event loop that there is."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)
