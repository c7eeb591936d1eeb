"""Probe ``tcp``: connect and stay connected, since a CTP front may accept connections and drop them."""

import asyncio
import contextlib
import time
from typing import Literal

from tickertape.producers.monitor.gateway.probe_health import Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import answered, failed
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import Duration

from tickertape.net.http_client import CHUNK, close
from tickertape.net.outgoing import open_connection


class TcpProbe(AddressProbe):
    """TCP connection that the peer must keep open for ``hold``."""

    kind: Literal["tcp"]
    hold: Duration = 0.0

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        host, port = self.endpoint
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        async with asyncio.timeout(time_limit):
            reader, writer = await open_connection(host, port, limit=CHUNK)
        connected = clock()
        latency = connected - started
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.hold):
                    # Discard the data: all that matters is that the peer does not close the connection.
                    while await reader.read(CHUNK):
                        pass
                    held = clock() - connected
                    error = (
                        f"peer closed the connection after {held:.1f} s; expected at least {self.hold:g} s"
                    )
                    return failed(error, latency)
            return answered(latency, self.degraded_above)
        finally:
            await close(writer)
