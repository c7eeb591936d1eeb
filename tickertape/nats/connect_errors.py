"""Failures to connect to NATS, as values with a kind, a reason and a hint.

``-ERR`` of a NATS server has no error code, only a text. ``parse_server_error`` is the only function that
interprets this text; all other code uses types and kinds.

Invariant: no message contains a password.
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
from tickertape.nats.wire import denials
from tickertape.urls import redact_url

_AUTH_ERRORS: Final = ("authorization violation", "authentication", "credentials")
_CERTIFICATE_HINTS: Final = {
    9: "check the clocks, or wait until the certificate of the server is valid",
    10: "renew the certificate of the server",
    62: "use a host name of the certificate in --nats-url",
    64: "use an address of the certificate in --nats-url",
}
"""Hints by OpenSSL's X509_V_ERR code."""

_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")
"""Prefix of the texts of OSError, which names the cause a second time."""


class TlsError(OperatorError, NatsError):
    """Failure to establish a TLS connection that both sides accept."""


class ServerProtocolError(TickertapeError, NatsError):
    """Data from the server that violates the NATS protocol."""


class CredentialsRejected(TickertapeError, NatsError):
    """Rejection of the credentials, or of their absence; the text is the server's."""


class PermissionsViolation(TickertapeError, NatsError):
    """Report of the server that it denies a permission; the client turns it into ``PermissionDenied``.

    Args:
        text: message of the server.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.report = denials.parse_report(text)


def parse_server_error(text: str) -> NatsError:
    """Return the exception for the text of an ``-ERR`` message.

    Args:
        text: text of the message, with or without quotes.
    """
    message = text.strip().strip("'")
    lower = message.lower()
    # This comes first, because the text quotes a subject, which may contain the words of the other kinds.
    if lower.startswith(denials.PREFIX):
        return PermissionsViolation(message)
    if lower.startswith("stale connection"):
        return StaleConnectionError()
    if any(phrase in lower for phrase in _AUTH_ERRORS):
        return CredentialsRejected(message)
    return NatsError(message)


class ConnectFailureKind(Enum):
    """Cause of a failure to connect."""

    UNREACHABLE = "unreachable"
    """No connection: a network or server problem, or a credentials file that is being replaced."""
    AUTH = "auth"
    """The server rejects the credentials, or requires credentials."""
    TLS = "tls"
    """The TLS handshake failed."""

    @property
    def is_transient(self) -> bool:
        """Whether the next attempt may succeed without a change of settings."""
        return self is ConnectFailureKind.UNREACHABLE


@dataclass(frozen=True, slots=True)
class ConnectFailure:
    """Failure to connect to NATS; its text is ``message; hint``.

    Attributes:
        kind: cause of the failure.
        url: address of NATS, without a password.
        summary: what happened, as the predicate of a sentence whose subject is the address.
        reason: text of the server or the operating system.
        hint: what the operator can do.
    """

    kind: ConnectFailureKind
    url: str
    summary: str
    reason: str
    hint: str

    @property
    def message(self) -> str:
        """Description of the failure, without the hint."""
        return f"NATS at {self.url} {self.summary}: {self.reason}"

    @property
    def retry_message(self) -> str:
        """Message of a program that retries; includes the hint if waiting alone does not help."""
        hint = "" if self.kind.is_transient else f"; {self.hint}"
        return f"NATS at {self.url} {self.summary}, retrying: {self.reason}{hint}"

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class ConnectError(OperatorError, OSError):
    """Failure to connect to NATS.

    Args:
        failure: kind, reason and hint.
    """

    def __init__(self, failure: ConnectFailure) -> None:
        super().__init__(failure.message, failure.hint)
        self.failure = failure


def unreachable(
    url: str, reason: str, hint: str = "check that it is running and that --nats-url is correct"
) -> ConnectFailure:
    """Return the failure of a connection that may succeed later.

    Args:
        url: as in ``connect``.
        reason: why the connection failed.
        hint: what the operator can do.
    """
    return ConnectFailure(ConnectFailureKind.UNREACHABLE, redact_url(url), "unreachable", reason, hint)


def classify_failure(error: Exception, url: str, access: Access) -> ConnectFailure:
    """Return the failure that an exception stands for.

    Args:
        error: the last exception of nats-py or the operating system.
        url: as in ``connect``.
        access: credentials of the attempt.
    """
    # From specific to general: a TlsError is also an OperatorError, and SSLCertVerificationError an SSLError.
    if isinstance(error, (CredentialsRejected, AuthorizationError, InvalidUserCredentialsError)):
        return _auth(error, url, has_credentials=access.has_credentials or "@" in url)
    if isinstance(error, TlsError):
        return _tls(url, error.message, error.hint)
    if isinstance(error, ssl.SSLCertVerificationError):
        return _tls(
            url,
            f"the server certificate is not trusted: {error.verify_message}",
            _CERTIFICATE_HINTS.get(error.verify_code, "set --nats-ca to the CA that signed it"),
        )
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "reason", None) or _plain_text(error)
        reason = reason.replace("_", " ").lower()
        return _tls(url, reason, "check --nats-cert, --nats-key and the log of the server")
    if isinstance(error, OperatorError):
        # Such as an AccessError: the file was valid at the start, and may be
        # in the process of being replaced.
        return unreachable(url, error.message, error.hint)
    return unreachable(url, _plain_text(error))


def _auth(error: Exception, url: str, *, has_credentials: bool) -> ConnectFailure:
    summary, hint = (
        ("rejected the credentials", "check the user and password, the nkey, or the .creds file")
        if has_credentials
        else ("requires credentials", "set --nats-creds or --nats-user")
    )
    return ConnectFailure(ConnectFailureKind.AUTH, redact_url(url), summary, _plain_text(error), hint)


def _tls(url: str, reason: str, hint: str) -> ConnectFailure:
    return ConnectFailure(ConnectFailureKind.TLS, redact_url(url), "failed the TLS handshake", reason, hint)


def _plain_text(error: Exception) -> str:
    """Return the text of an exception without the prefixes of nats-py and the operating system."""
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
