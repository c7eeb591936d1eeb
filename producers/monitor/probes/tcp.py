"""The ``tcp`` probe: connects, and stays connected. A CTP front that accepts and then drops is not up."""

import asyncio
import contextlib
import time
from typing import Literal

from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CHUNK, answered, close, failed
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import Duration


class TcpProbe(AddressProbe):
    """Connects, then must stay connected for ``hold`` without the peer closing."""

    kind: Literal["tcp"]
    hold: Duration = 0.0

    async def probe(self, limit: float, context: ProbeContext) -> Result:
        host, port = self.endpoint
        clock = time.monotonic  # the loop's own clock stands still within a turn
        began = clock()
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(host, port, limit=CHUNK)
        connected = clock()
        latency = connected - began
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.hold):
                    # What the peer says is of no interest; only that it does not hang up.
                    while await reader.read(CHUNK):
                        pass
                    held = clock() - connected
                    error = f"peer closed the connection after {held:.1f} s; it must hold {self.hold:g} s"
                    return failed(error, latency)
            return answered(latency, self.degraded_above)
        finally:
            await close(writer)
