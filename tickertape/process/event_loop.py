"""Choice of the event loop, whose threads do not delay the end of the process."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Coroutine
from typing import Any, Final

from tickertape.net import outgoing
from tickertape.net.daemon_pool import DaemonPool
from tickertape.net.resolver import parse_numeric
from tickertape.process import shutdown

BaseLoop: Any
try:
    from uvloop import Loop as BaseLoop
except ImportError:
    BaseLoop = asyncio.SelectorEventLoop

MAX_THREADS: Final = 32
"""Threads for blocking calls, such as reads of files that may be on a network file system."""

_CLIENT_FLAGS: Final = socket.AI_ADDRCONFIG
"""Flags of ``getaddrinfo`` that the shared look-ups may ignore: an address that cannot be used is skipped."""


class Loop(BaseLoop):  # type: ignore[misc]
    """Event loop of uvloop if it is installed, else of asyncio, that resolves names by ``outgoing``.

    The threads of libuv, in which uvloop resolves names, are waited for when the process ends, and only two
    of them look up names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.set_default_executor(DaemonPool(MAX_THREADS, "worker"))

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        if (numeric := parse_numeric(host, port, **{"type": 0, **options})) is not None:
            return list(numeric)
        # Libraries resolve names themselves, such as that for NATS over WebSocket.
        family = options.get("family", 0)
        if isinstance(host, str) and isinstance(port, int) and not options.get("flags", 0) & ~_CLIENT_FLAGS:
            found = await outgoing.resolve(host, port)
            return [address for address in found if family in (0, address[0])]
        return await self.run_in_executor(None, functools.partial(socket.getaddrinfo, host, port, **options))

    async def create_connection(
        self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if host is not None and options.get("sock") is None:
            if options.get("ssl"):
                options.setdefault("server_hostname", outgoing.tls_name(host))
            options["sock"] = await outgoing.connect(host, port)
            host = port = None
        with outgoing.handshake_phase() if options.get("ssl") else contextlib.nullcontext():
            return await super().create_connection(protocol_factory, host, port, **options)


def run_async(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine and return its exit code; calls in threads that hang then are abandoned.

    In a program, the process exits within ``shutdown.FINAL_GRACE`` seconds after that, whatever still runs.
    """
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            return runner.run(_run_main(main))
    except asyncio.CancelledError:
        return shutdown.interrupted_code()
    finally:
        shutdown.end_children()


async def _run_main(main: Coroutine[Any, Any, int]) -> int:
    loop = asyncio.get_running_loop()
    shutdown.name_pending(lambda: [task.get_name() for task in asyncio.all_tasks(loop)])
    try:
        return await main
    finally:
        shutdown.begin()
