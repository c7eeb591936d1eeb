"""Probes that are run once, against servers on loopback."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pydantic import TypeAdapter
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes import Probe, ProbeContext, ProbeSettings, run

from tests.support.patience import PATIENCE

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
TIMEOUT = 0.5
"""Timeout in seconds of a probe that is expected to time out; the others have ample time."""


def run_probe(
    context: ProbeContext | None = None, *, patience: float = PATIENCE, **probe: Any
) -> Result | None:
    """Probe once, in an event loop of its own."""
    return asyncio.run(probe_once(context, patience=patience, **probe))


async def probe_once(
    context: ProbeContext | None = None, *, patience: float = PATIENCE, **probe: Any
) -> Result | None:
    """Probe once with ``patience`` as its timeout."""
    parsed: ProbeSettings = TypeAdapter(Probe).validate_python(probe)
    async with asyncio.timeout(2 * PATIENCE):
        return await run(Check(parsed, 5.0, patience, 3, 2), context or ProbeContext())


async def probe_expecting(expected: str, **probe: Any) -> Result | None:
    """Probe once; if the expected error ends in "within", with a timeout that suffices to get there.

    On a busy machine, a step before the expected one may take longer than a short timeout.
    """
    if not expected.endswith("within"):
        return await probe_once(**probe)
    for seconds in (TIMEOUT, 8 * TIMEOUT, 64 * TIMEOUT):
        result = await probe_once(patience=seconds, **probe)
        if result is not None and result.error == f"{expected} {seconds:.1f} s":
            break
    return result


def outcome_and_error(result: Result | None) -> tuple[Outcome, str]:
    assert result is not None
    return result.outcome, str(result.error)


@contextlib.asynccontextmanager
async def serving(handler: Handler, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """Run a server on a loopback port; cancel its connections at the end."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.CancelledError, asyncio.IncompleteReadError):
                await handler(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read everything and send nothing."""
    while await reader.read(65_536):
        pass


def answering(body: bytes, head: bytes = b"HTTP/1.1 200 OK\r\n") -> Handler:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        await silent(reader, writer)

    return handle
