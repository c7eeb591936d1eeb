"""The ``tls`` probe: shakes hands, trusts or refuses the certificate, and sees when it ends."""

import asyncio
import ssl
import time
from functools import lru_cache
from typing import Final, Literal

from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.result import CHUNK, answered, close
from tickertape.producers.monitor.probes.settings import AddressProbe
from tickertape.producers.monitor.types import PositiveDuration

_DAY: Final = 86_400.0


@lru_cache(maxsize=64)
def trust(ca: str | None = None) -> ssl.SSLContext:
    """Trusts the authorities in a file, or those of the system."""
    return ssl.create_default_context(cafile=ca)


def expiry(writer: asyncio.StreamWriter) -> float | None:
    """When the peer's certificate ends, UNIX seconds; None without TLS."""
    secured = writer.get_extra_info("ssl_object")
    certificate = secured.getpeercert() if secured is not None else None
    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate else None


class TlsProbe(AddressProbe):
    """Shakes hands and looks at the certificate; one that ends within ``expires_within`` is degraded."""

    kind: Literal["tls"]
    server_name: str | None = None
    ca: str | None = None
    """File with the authorities to trust; those of the system by default."""
    expires_within: PositiveDuration = 14 * 86_400.0

    async def probe(self, limit: float, context: ProbeContext) -> Result:
        host, port = self.endpoint
        clock = time.monotonic  # the loop's own clock stands still within a turn
        began = clock()
        async with asyncio.timeout(limit):
            _, writer = await asyncio.open_connection(
                host, port, ssl=trust(self.ca), server_hostname=self.server_name or host, limit=CHUNK
            )
        latency = clock() - began
        try:
            expires = expiry(writer)
        finally:
            await close(writer)
        if expires is not None and (left := expires - time.time()) < self.expires_within:
            return Result(Outcome.DEGRADED, f"certificate ends in {left / _DAY:.1f} days", latency, expires)
        return answered(latency, self.degraded_above, expires)
