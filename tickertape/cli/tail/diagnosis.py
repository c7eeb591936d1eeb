"""Explanation of a failed connection: the port speaks another protocol than the URL says.

A relay with TLS closes a plain connection without a word, and nothing that listens on another port knows of
relays, so the errors of such connections do not name the cause.
"""

import asyncio
import contextlib
from urllib.parse import urlsplit, urlunsplit

from tickertape.net.protocol_detection import PortProtocol, detect_protocol

_PORTS = {"ws": 80, "http": 80, "wss": 443, "https": 443}


async def explain(url: str) -> str | None:
    """Return what is wrong with a URL and how to correct it; None if its port is not known to be wrong.

    Args:
        url: valid URL of a relay.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(5.0):
            return _describe(await detect_protocol(host, port), url)
    return None


def _describe(protocol: PortProtocol | None, url: str) -> str | None:
    parts = urlsplit(url)
    match protocol, parts.scheme:
        case PortProtocol.TLS, "ws" | "http":
            secure = urlunsplit(parts._replace(scheme=f"{parts.scheme}s"))
            return f"the port expects TLS; use --url {secure}, with --ca if the certificate is private"
        case PortProtocol.HTTP, "wss" | "https":
            plain = urlunsplit(parts._replace(scheme=parts.scheme.removesuffix("s")))
            return f"the port does not use TLS; use --url {plain}, or start the relay with --tls-cert"
        case PortProtocol.NATS, _:
            return "the port is that of a NATS server; use the port of a relay, 8080 by default"
    return None


def explain_status(status: int, url: str) -> str:
    """Return a hint for the status of a rejected connection; empty if the response has the reason."""
    if status in (404, 405, 426, 200):
        path = "/stream" if urlsplit(url).scheme in ("http", "https") else "/ws"
        return f"; check that it is the main port of a relay, and that the path is {path}"
    return ""


__all__ = ["explain", "explain_status"]
