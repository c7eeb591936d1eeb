"""What is wrong with NATS, in one line for the operator, without a password.

A reason is said after the address: ``NATS at nats://host is away (<reason>)``. One that waiting alone does
not mend begins with "refuses": ``NATS at nats://host refuses the credentials: ...``.
"""

import ssl
from typing import Final

from tickertape.nats.client import TlsRefused
from tickertape.nats.credentials import Access, AccessError
from tickertape.urls import shown

_REFUSES: Final = "refuses "
_OF_CREDENTIALS: Final = ("authorization violation", "authentication", "credentials")


def refused(reason: str) -> bool:
    """Tell whether a reason is one that waiting alone does not mend: credentials, certificates."""
    return reason.startswith(_REFUSES)


def trouble(url: str, reason: str) -> str:
    """Say in one line what is wrong with NATS, for people and logs.

    Args:
        url: as in ``connect``.
        reason: as ``on_down`` gets it.
    """
    return f"NATS at {shown(url)} {reason if refused(reason) else f'is away ({reason})'}"


class ConnectError(OSError):
    """NATS was not reached; the text is one line for the operator.

    Args:
        url: as in ``connect``.
        reason: as ``on_down`` gets it.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = shown(url)
        self.reason = reason

    def __str__(self) -> str:
        if refused(self.reason):
            return f"NATS at {self.url} {self.reason}"
        return f"NATS at {self.url} does not answer: {self.reason}; start it, or give --nats-url"


def reason_of(error: Exception, url: str, access: Access) -> str:
    """Why NATS is not reached, as ``on_down`` is told it.

    Args:
        error: what nats-py or the system said last.
        url: as in ``connect``.
        access: what was tried.
    """
    text = str(error).removeprefix("nats: ").strip("'")
    if any(word in text.lower() for word in _OF_CREDENTIALS) and not isinstance(error, AccessError):
        if access.identifies or "@" in url:
            return f"{_REFUSES}the credentials: {text}; check user and password, key, or .creds file"
        return f"{_REFUSES}a connection without credentials: {text}; give --nats-creds, or --nats-user"
    if isinstance(error, TlsRefused):
        return f"{_REFUSES}TLS: {text}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{_REFUSES}TLS: its certificate is not trusted: {error.verify_message}; check --nats-ca"
    if isinstance(error, ssl.SSLError):
        what = (getattr(error, "reason", None) or "the handshake failed").replace("_", " ").lower()
        return f"{_REFUSES}TLS: {what}; check --nats-cert, --nats-key and the server's log"
    return text or type(error).__name__


__all__ = ["ConnectError", "reason_of", "refused", "trouble"]
