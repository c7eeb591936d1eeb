"""Task helpers that still terminate when a cancellation is swallowed.

``asyncio.wait_for`` in Python 3.11 returns its result and drops the cancellation if both arrive in the same
iteration of the event loop; nats-py uses it throughout. Code that cancels such a task once and then waits for
it, as ``asyncio.TaskGroup`` does, may hang.

Invariants:

1. ``cancel_and_wait``, and leaving ``Tasks``, return only when every task is done, even if cancellations were
   swallowed.
2. Cancelling the calling task does not interrupt either of them; the cancellation is raised when they finish.
"""

import asyncio
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

CANCEL_INTERVAL: Final = 3.0
"""Seconds between two cancellations of a task: longer than a graceful shutdown takes, because draining a
connection to NATS may take two seconds.
"""


async def cancel_and_wait(*tasks: asyncio.Future[Any], interval: float = CANCEL_INTERVAL) -> None:
    """Cancel tasks repeatedly until all are done; their exceptions are not raised.

    Args:
        tasks: tasks or other futures; may be done already.
        interval: seconds between two cancellations.

    Raises:
        asyncio.CancelledError: the calling task was cancelled in the meantime.
    """
    now = asyncio.get_running_loop().time
    pending = {task for task in tasks if not task.done()}
    cancelled, due = False, now()
    while pending:
        if now() >= due:
            for task in pending:
                task.cancel()
            due = now() + interval
        try:
            _, pending = await asyncio.wait(pending, timeout=due - now())
        except asyncio.CancelledError:
            # The wait continues, because invariant 1 holds for a cancelled caller, too.
            cancelled = True
            pending = {task for task in pending if not task.done()}
    for task in tasks:
        if not task.cancelled():
            task.exception()  # mark it as retrieved, or asyncio would log it
    if cancelled:
        raise asyncio.CancelledError


async def race(
    *runners: asyncio.Future[Any] | Coroutine[Any, Any, object], seconds: float | None = None
) -> None:
    """Wait until one of several awaitables is done, or the time is up.

    Args:
        runners: futures and tasks, which keep running afterwards, and coroutines, which are cancelled.
        seconds: maximum wait; None waits without a limit.

    Raises:
        Exception: the exception of a coroutine; exceptions of futures and tasks are not raised.
    """
    futures = [asyncio.ensure_future(runner) for runner in runners]
    # ``ensure_future`` returns futures and tasks unchanged; what it creates belongs to this function.
    started = [future for future, runner in zip(futures, runners, strict=True) if future is not runner]
    try:
        await asyncio.wait(futures, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(*started)
    for future in started:
        if not future.cancelled():
            future.result()


async def run_until_stopped(stop: Coroutine[Any, Any, object], work: Coroutine[Any, Any, T]) -> T | None:
    """Run a coroutine; cancel it and return None if ``stop`` finishes first.

    Raises:
        Exception: the exception of ``work``.
    """
    task = asyncio.ensure_future(work)
    try:
        await race(task, stop)
    finally:
        await cancel_and_wait(task)
    return None if task.cancelled() else task.result()


async def run_with_check(work: Coroutine[Any, Any, T], check: Callable[[], object], interval: float) -> T:
    """Run a coroutine; cancel it as soon as a periodic check raises.

    Args:
        work: the coroutine; may never finish on its own.
        check: raises the exception that replaces the result of ``work``.
        interval: seconds between two checks.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=interval))[0]:
            check()
    finally:
        await cancel_and_wait(task)
    return task.result()


class Tasks:
    """Group of concurrent tasks that are cancelled together when the context is left."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"Tasks({len(self)})"

    def __len__(self) -> int:
        """Return the number of tasks that are not done."""
        return len(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await cancel_and_wait(*self._running)
        # An exception of the body takes precedence.
        if self._failed.done() and kind is None:
            self._failed.result()

    def start(self, work: Coroutine[Any, Any, T], name: str | None = None) -> asyncio.Task[T]:
        """Start a task; the group does not require it to keep running.

        Args:
            work: the coroutine to run.
            name: name of the task, for debugging.
        """
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._task_done)
        return task

    async def until(self, work: Coroutine[Any, Any, object] | None = None) -> None:
        """Wait until ``work`` is done or a task fails; without ``work``, until a task fails.

        Raises:
            Exception: the exception of the first task that failed.
        """
        if work is None:
            # Without the shield, cancelling this wait would cancel the future in which a failure is stored.
            await asyncio.shield(self._failed)
            return
        await race(work, self._failed)
        if self._failed.done():
            self._failed.result()

    async def join(self, seconds: float) -> None:
        """Wait until all tasks are done, or the time is up; cancel nothing."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._failed.done():
            self._failed.set_exception(error)
            self._failed.exception()  # mark it as retrieved, even if nothing awaits it any more


__all__ = ["CANCEL_INTERVAL", "Tasks", "cancel_and_wait", "race", "run_until_stopped", "run_with_check"]
