"""Tasks that end even though a cancellation can be swallowed.

``asyncio.wait_for`` in Python 3.11 returns its result when a cancellation arrives in the same turn of the
event loop, and forgets the cancellation; nats-py uses it throughout. Code that cancels such a task once and
then waits for it, as ``asyncio.TaskGroup`` does, may hang.

Invariants:

1. ``end``, and leaving ``Tasks``, return only when every task is done, whatever was swallowed.
2. Neither is interrupted by a cancellation of its own task, which is raised when they are through.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

CANCEL_INTERVAL: Final = 3.0
"""Seconds after which a cancellation is repeated: more than an orderly end takes, since a connection to NATS
may drain for two."""


async def cancel_and_wait(*tasks: asyncio.Future[Any], interval: float = CANCEL_INTERVAL) -> None:
    """Cancel tasks until all are done; what they raised stays in them.

    Args:
        tasks: or other futures; may be done already.
        again: seconds after which a cancellation is repeated.

    Raises:
        asyncio.CancelledError: the calling task was cancelled meanwhile.
    """
    now = asyncio.get_running_loop().time
    rest = {task for task in tasks if not task.done()}
    cancelled, due = False, now()
    while rest:
        if now() >= due:
            for task in rest:
                task.cancel()
            due = now() + interval
        try:
            _, rest = await asyncio.wait(rest, timeout=due - now())
        except asyncio.CancelledError:
            cancelled = True
            rest = {task for task in rest if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieved: asyncio would log it otherwise
    if cancelled:
        raise asyncio.CancelledError


async def race(
    *runners: asyncio.Future[Any] | Coroutine[Any, Any, object], seconds: float | None = None
) -> None:
    """Wait until one of several is done, or the time is over.

    Args:
        runners: futures and tasks, which run on afterwards; and coroutines, which are ended.
        seconds: None waits without end.

    Raises:
        Exception: what a coroutine has raised; what a future has stays in it.
    """
    futures = [asyncio.ensure_future(runner) for runner in runners]
    begun = [future for future, runner in zip(futures, runners, strict=True) if future is not runner]
    try:
        await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*begun)
    for future in begun:
        if not future.cancelled():
            future.result()


async def run_until_stopped(stop: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T | None:
    """Do some work; end it, and return None, when ``stop`` is done first.

    Raises:
        Exception: what the work has raised.
    """
    working = asyncio.ensure_future(work)
    try:
        await race(working, stop)
    finally:
        await cancel_and_wait(working)
    return None if working.cancelled() else working.result()


async def run_with_check(work: Coroutine[Any, Any, T], look: Callable[[], object], every: float) -> T:
    """Do some work, but end it as soon as a look tells that it is in vain.

    Args:
        work: may never end by itself.
        look: raises what is to be raised in its place.
        every: seconds between two looks.
    """
    working = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({working}, timeout=every))[0]:
            look()
    finally:
        await cancel_and_wait(working)
    return working.result()


class Tasks:
    """Tasks that run beside each other and end together, when the context is left."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"Tasks({len(self)})"

    def __len__(self) -> int:
        """Count those that are not done."""
        return len(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(*self._running)
        if self._failed.done() and kind is None:
            self._failed.result()

    def start(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task; it may end by itself.

        Args:
            work: what it does.
            name: of the task, for debugging.
        """
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def until(self, work: Coroutine[Any, Any, object] | None = None) -> None:
        """Wait until some work is done or a task fails; without work, until a task fails.

        Raises:
            Exception: what the task that failed first has raised.
        """
        if work is None:
            await asyncio.shield(self._failed)
            return
        await race(work, self._failed)
        if self._failed.done():
            self._failed.result()

    async def settle(self, seconds: float) -> None:
        """Wait until all are done by themselves, or the time is over."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # retrieved, even if nothing waits for it any more


__all__ = ["CANCEL_INTERVAL", "Tasks", "cancel_and_wait", "race", "run_until_stopped", "run_with_check"]
