"""Probe ``tls``: perform a handshake that the peer accepts, verify its certificate and check its expiry."""

import asyncio
import time
from typing import Final, Literal

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.options.tls import TlsOptions
from tickertape.producers.monitor.probes.result import answered
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import PositiveDuration

from tickertape.net.http_client import CHUNK, certificate_expiry, close
from tickertape.net.outgoing import open_connection

_DAY: Final = 86_400.0


class TlsProbe(TlsOptions, AddressProbe):
    """TLS handshake with a valid certificate; one that expires within ``expires_within`` is degraded."""

    kind: Literal["tls"]
    expires_within: PositiveDuration = 14 * 86_400.0

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        host, port = self.endpoint
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        end = asyncio.get_running_loop().time() + time_limit
        async with asyncio.timeout_at(end):
            reader, writer = await open_connection(
                host, port, tls=self.ssl_context(), server_name=self.server_name, limit=CHUNK
            )
        latency = clock() - started
        try:
            expires = certificate_expiry(writer)
            await self.wait_for_acceptance(reader, writer, latency, end)
        finally:
            await close(writer)
        if expires is not None and (remaining := expires - time.time()) < self.expires_within:
            return Result(
                Outcome.DEGRADED, f"certificate expires in {remaining / _DAY:.1f} days", latency, expires
            )
        return answered(latency, self.degraded_above, expires)
