"""The ``tls`` probe: shakes hands, trusts or refuses the certificate, and sees when it ends."""

import asyncio
import ssl
import time
from functools import lru_cache
from typing import Final

from tickertape.producers.monitor.config.probes import TlsProbe
from tickertape.producers.monitor.config.types import parse_address
from tickertape.producers.monitor.gateway.probe_health import Outcome, Result
from tickertape.producers.monitor.probes.result import CHUNK, answered, close

_DAY: Final = 86_400.0


@lru_cache(maxsize=64)
def context(ca: str | None = None) -> ssl.SSLContext:
    """Trusts the authorities in a file, or those of the system."""
    return ssl.create_default_context(cafile=ca)


def expiry(writer: asyncio.StreamWriter) -> float | None:
    """When the peer's certificate ends, UNIX seconds; None without TLS."""
    secured = writer.get_extra_info("ssl_object")
    certificate = secured.getpeercert() if secured is not None else None
    return float(ssl.cert_time_to_seconds(certificate["notAfter"])) if certificate else None


async def look(probe: TlsProbe, limit: float) -> Result:
    """Probe once, within ``limit`` seconds."""
    host, port = parse_address(probe.address)
    clock = time.monotonic  # the loop's own clock stands still within a turn
    began = clock()
    async with asyncio.timeout(limit):
        _, writer = await asyncio.open_connection(
            host, port, ssl=context(probe.ca), server_hostname=probe.server_name or host, limit=CHUNK
        )
    latency = clock() - began
    try:
        expires = expiry(writer)
    finally:
        await close(writer)
    if expires is not None and (left := expires - time.time()) < probe.expires_within:
        return Result(Outcome.DEGRADED, f"certificate ends in {left / _DAY:.1f} days", latency, expires)
    return answered(latency, probe.degraded_above, expires)
