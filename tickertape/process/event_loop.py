"""Choice of the event loop, whose threads do not delay the end of the process."""

import asyncio
import functools
import socket
from collections.abc import Coroutine
from typing import Any, Final

from tickertape.net import outgoing
from tickertape.net.daemon_pool import DaemonPool

BaseLoop: Any
try:
    from uvloop import Loop as BaseLoop
except ImportError:
    BaseLoop = asyncio.SelectorEventLoop

MAX_THREADS: Final = 32
"""Threads for blocking calls, such as reads of files that may be on a network file system."""


class Loop(BaseLoop):  # type: ignore[misc]
    """Event loop of uvloop if it is installed, else of asyncio, that resolves names in daemon threads.

    The threads of libuv, in which uvloop resolves names, are waited for when the process ends, and there are
    only four of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(DaemonPool(MAX_THREADS, "worker"))

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        look_up = functools.partial(socket.getaddrinfo, host, port)
        try:
            return look_up(**{**options, "flags": options.get("flags", 0) | socket.AI_NUMERICHOST})
        except (OSError, UnicodeError):
            return await self.run_in_executor(None, functools.partial(look_up, **options))

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if host is not None and options.get("sock") is None:
            if options.get("ssl"):
                options.setdefault("server_hostname", host)
            options["sock"] = await outgoing.connect(host, port)
            host = port = None
        return await super().create_connection(protocol_factory, host, port, **options)


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine and return its exit code; calls in threads that hang then are abandoned."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(main)
