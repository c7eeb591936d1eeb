"""Threads for calls that may hang, such as name look-ups: the end of the process does not wait for them.

The interpreter joins the threads of a ``ThreadPoolExecutor`` when it exits, and ``asyncio.run`` joins those
of the default executor; neither can interrupt a call in C. Daemon threads are abandoned instead.
"""

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


# A subclass, because asyncio accepts no other class as its default executor.
class DaemonPool(ThreadPoolExecutor):
    """Pool of daemon threads, which are started on demand and then kept.

    Args:
        max_threads: maximum number of threads; further calls wait for a free one.
        name: prefix of the threads' names.
    """

    def __init__(self, max_threads: int, name: str) -> None:
        super().__init__(max_threads, name)
        self._max_threads = max_threads
        self._name = name
        self._reset()
        # The threads do not exist in a forked child.
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        self._calls: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._running = 0
        self._idle = 0

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run a function in a thread of the pool.

        Returns:
            its result, which cannot be cancelled.

        Raises:
            RuntimeError: no thread can be started, because the interpreter exits.
        """
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            self._calls.append((future, partial(fn, *args, **kwargs)))
            if self._idle >= len(self._calls):
                self._changed.notify()
            elif self._running < self._max_threads:
                self._start_thread()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Return immediately; calls that have not finished are abandoned when the process ends."""

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._work, name=f"{self._name}-{self._running}", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            # The interpreter exits, or the system has no further thread.
            if not self._running:
                self._calls.pop()
                raise
        else:
            self._running += 1

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._calls:
                    self._idle += 1
                    self._changed.wait()
                    self._idle -= 1
                future, call = self._calls.popleft()
            try:
                result = call()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            del future, call  # not kept alive until the next call
