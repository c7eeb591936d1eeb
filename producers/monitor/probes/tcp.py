"""The ``tcp`` probe: connects, and stays connected. A CTP front that accepts and then drops is not up."""

import asyncio
import contextlib
import time

from tickertape.producers.monitor.config.probes import TcpProbe
from tickertape.producers.monitor.config.types import parse_address
from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.result import CHUNK, answered, close, failed


async def look(probe: TcpProbe, limit: float) -> Result:
    """Probe once; ``limit`` is for connecting, in seconds, and ``hold`` comes on top."""
    host, port = parse_address(probe.address)
    clock = time.monotonic  # the loop's own clock stands still within a turn
    began = clock()
    async with asyncio.timeout(limit):
        reader, writer = await asyncio.open_connection(host, port, limit=CHUNK)
    connected = clock()
    latency = connected - began
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(probe.hold):
                # What the peer says is of no interest; only that it does not hang up.
                while await reader.read(CHUNK):
                    pass
                held = clock() - connected
                error = f"peer closed the connection after {held:.1f} s; it must hold {probe.hold:g} s"
                return failed(error, latency)
        return answered(latency, probe.degraded_above)
    finally:
        await close(writer)
