"""Probe ``tls``: perform a handshake, verify the certificate and check its expiry."""

import asyncio
import ssl
import time
from functools import lru_cache
from typing import Final, Literal

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import answered
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import PositiveDuration

from tickertape.net.http_client import CHUNK, certificate_expiry, close
from tickertape.net.outgoing import open_connection

_DAY: Final = 86_400.0


# Cached, because loading the authorities of the system takes milliseconds, for each probe.
@lru_cache(maxsize=64)
def create_ssl_context(ca: str | None = None) -> ssl.SSLContext:
    """Create a context that trusts the authorities in a file, or those of the system."""
    return ssl.create_default_context(cafile=ca)


class TlsProbe(AddressProbe):
    """TLS handshake with a valid certificate; one that expires within ``expires_within`` is degraded."""

    kind: Literal["tls"]
    server_name: str | None = None
    ca: str | None = None
    """File with the certificate authorities to trust; those of the system by default."""
    expires_within: PositiveDuration = 14 * 86_400.0

    async def probe(self, time_limit: float, context: ProbeContext) -> Result:
        host, port = self.endpoint
        clock = time.monotonic  # uvloop does not advance loop.time() within an iteration
        started = clock()
        async with asyncio.timeout(time_limit):
            _, writer = await open_connection(
                host, port, tls=create_ssl_context(self.ca), server_name=self.server_name, limit=CHUNK
            )
        latency = clock() - started
        try:
            expires = certificate_expiry(writer)
        finally:
            await close(writer)
        if expires is not None and (remaining := expires - time.time()) < self.expires_within:
            return Result(
                Outcome.DEGRADED, f"certificate expires in {remaining / _DAY:.1f} days", latency, expires
            )
        return answered(latency, self.degraded_above, expires)
