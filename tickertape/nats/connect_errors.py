"""Failures to reach NATS: each a value with a kind, a reason and a hint.

A NATS server says why it refuses in words alone; its ``-ERR`` has no code. ``server_error`` is the one place
that reads these words; everything else looks at types and kinds.

Invariant: no text here holds a password.
"""

import re
import ssl
from dataclasses import dataclass
from enum import Enum
from typing import Final

from nats.errors import AuthorizationError, InvalidUserCredentialsError, StaleConnectionError
from nats.errors import Error as NatsError

from tickertape.errors import OperatorError, TickertapeError
from tickertape.nats.credentials import Access
from tickertape.urls import redact_url

_OF_CREDENTIALS: Final = ("authorization violation", "authentication", "credentials")
_PERMISSIONS: Final = "permissions violation"
_SUBJECT: Final = re.compile(r'for (\w+) .*?"(.+?)"(?: using queue ".*")?$', re.IGNORECASE)
_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")
"""What the system writes before the words that say the same."""


class TlsError(OperatorError, NatsError):
    """There is no TLS connection that both sides accept."""


class ServerProtocolError(TickertapeError, NatsError):
    """What came over the connection cannot be read; the text says what."""


class CredentialsRejected(TickertapeError, NatsError):
    """The server does not accept the credentials, or their absence; the text is the server's."""


class PermissionsViolation(TickertapeError, NatsError):
    """This user may not publish to, or subscribe to, a subject; the connection stays.

    Args:
        text: the server's.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        found = _SUBJECT.search(text)
        self.action, self.subject = (found[1].lower(), found[2]) if found else ("", "")


def parse_server_error(text: str) -> NatsError:
    """Make an exception of what a server says with ``-ERR``.

    Args:
        text: with or without its quotes.
    """
    words = text.strip().strip("'")
    lower = words.lower()
    if lower.startswith(_PERMISSIONS):
        return PermissionsViolation(words)
    if lower.startswith("stale connection"):
        return StaleConnectionError()
    if any(word in lower for word in _OF_CREDENTIALS):
        return CredentialsRejected(words)
    return NatsError(words)


class ConnectFailureKind(Enum):
    """Why NATS is not reached."""

    UNREACHABLE = "unreachable"
    """No connection: the network, the server, or a file with credentials that is being replaced."""
    AUTH = "auth"
    """The server rejects the credentials, or requires some."""
    TLS = "tls"
    """One side does not accept the other's TLS."""

    @property
    def is_transient(self) -> bool:
        """True when the next attempt may succeed without a change of settings."""
        return self is ConnectFailureKind.UNREACHABLE


@dataclass(frozen=True, slots=True)
class ConnectFailure:
    """A failure to reach NATS; its text is ``message; hint``.

    Attributes:
        kind: of the failure.
        url: of NATS, without a password.
        summary: what happened, as the end of a sentence that begins with the address.
        reason: the server's or the system's words.
        hint: what to do about it.
    """

    kind: ConnectFailureKind
    url: str
    summary: str
    reason: str
    hint: str

    @property
    def message(self) -> str:
        """What happened, without the hint."""
        return f"NATS at {self.url} {self.summary}: {self.reason}"

    @property
    def retry_message(self) -> str:
        """The line of a program that keeps trying; with the hint where waiting alone does not help."""
        hint = "" if self.kind.is_transient else f"; {self.hint}"
        return f"NATS at {self.url} {self.summary}, retrying: {self.reason}{hint}"

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class ConnectError(OperatorError, OSError):
    """NATS was not reached.

    Args:
        failure: its kind, reason and hint.
    """

    def __init__(self, failure: ConnectFailure) -> None:
        super().__init__(failure.message, failure.hint)
        self.failure = failure


def unreachable(
    url: str, reason: str, hint: str = "start it, or check its address (--nats-url)"
) -> ConnectFailure:
    """Make the failure of a connection that may succeed later.

    Args:
        url: as in ``connect``.
        reason: why there is none now.
        hint: what to do about it.
    """
    return ConnectFailure(ConnectFailureKind.UNREACHABLE, redact_url(url), "unreachable", reason, hint)


def classify_failure(error: Exception, url: str, access: Access) -> ConnectFailure:
    """Make the failure of an exception.

    Args:
        error: what nats-py or the system raised last.
        url: as in ``connect``.
        access: what was tried.
    """
    if isinstance(error, (CredentialsRejected, AuthorizationError, InvalidUserCredentialsError)):
        return _auth(error, url, given=access.has_credentials or "@" in url)
    if isinstance(error, TlsError):
        return _tls(url, error.message, error.hint)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _tls(url, f"its certificate is not trusted: {error.verify_message}", "check --nats-ca")
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or _plain_text(error)
        reason = reason.replace("_", " ").lower()
        return _tls(url, reason, "check --nats-cert, --nats-key and the server's log")
    if isinstance(error, OperatorError):
        return unreachable(url, error.message, error.hint)
    return unreachable(url, _plain_text(error))


def _auth(error: Exception, url: str, *, given: bool) -> ConnectFailure:
    summary, hint = (
        ("rejected the credentials", "check user and password, key, or .creds file")
        if given
        else ("requires credentials", "give --nats-creds, or --nats-user")
    )
    return ConnectFailure(ConnectFailureKind.AUTH, redact_url(url), summary, _plain_text(error), hint)


def _tls(url: str, reason: str, hint: str) -> ConnectFailure:
    return ConnectFailure(ConnectFailureKind.TLS, redact_url(url), "failed the TLS handshake", reason, hint)


def _plain_text(error: Exception) -> str:
    """Write an exception for people: without what its library or the system puts before the words."""
    return _ERRNO.sub("", str(error).removeprefix("nats: ").strip("'")) or type(error).__name__


__all__ = [
    "ConnectError",
    "ConnectFailure",
    "ConnectFailureKind",
    "CredentialsRejected",
    "PermissionsViolation",
    "ServerProtocolError",
    "TlsError",
    "classify_failure",
    "parse_server_error",
    "unreachable",
]
