"""A program that runs in the event loop of a test."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from tests.support.patience import PATIENCE


@contextlib.asynccontextmanager
async def stopped_at_end(program: Coroutine[Any, Any, int]) -> AsyncIterator[None]:
    """Run a program, stop it with SIGTERM, and check that it ends with exit code 0."""
    task = asyncio.create_task(program)
    try:
        await asyncio.sleep(0)  # the signal handler must be installed before the signal is sent
        yield
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await task == 0
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


__all__ = ["stopped_at_end"]
