"""Expiry of the certificates that a peer sends: its own and those of the authorities up to the root."""

import ssl
from functools import lru_cache
from typing import Any


def earliest_expiry(connection: ssl.SSLObject | None) -> float | None:
    """Return the earliest expiry among the certificates of a peer, UNIX seconds; None without TLS.

    An intermediate certificate that expires breaks the gateway as its own does. The chain is the one that
    the peer sends, as in blackbox_exporter, and is also there if it is not verified.

    Args:
        connection: connection after its handshake.
    """
    if connection is None:
        return None
    # ``SSLObject`` itself has this method since Python 3.13, and without the parsed form.
    chain: list[Any] = connection._sslobj.get_unverified_chain() or []  # type: ignore[attr-defined]
    times = [_parse_time(certificate.get_info()["notAfter"]) for certificate in chain]
    return float(min(times)) if times else None


@lru_cache(4096)  # each probe of a peer parses the same times
def _parse_time(text: str) -> int:
    return ssl.cert_time_to_seconds(text)
