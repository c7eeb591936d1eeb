"""TLS of ``tls://`` addresses (RFC 5425)."""

import ssl
from pathlib import Path

from tickertape.errors import OperatorError


class CertificateError(OperatorError):
    """Certificate, key or authority that cannot be used."""


def server_context(certificate: Path, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    """Return the context of a server.

    Args:
        certificate: PEM file of the certificate and its chain.
        key: PEM file of its private key; None if it is in the same file.
        client_ca: PEM file of the authorities of which senders must have a certificate; None for any sender.

    Raises:
        CertificateError: a file cannot be read or used.
    """
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # Without a password, OpenSSL would ask for that of an encrypted key on the terminal.
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CertificateError(
            f"cannot use certificate {certificate}: {_reason(error)}",
            "set --syslog-cert to a PEM chain and --syslog-key to its unencrypted private key",
        ) from None
    if client_ca is not None:
        try:
            context.load_verify_locations(client_ca)
        except (OSError, ValueError) as error:
            raise CertificateError(
                f"cannot use client CA {client_ca}: {_reason(error)}",
                "set --syslog-client-ca to a PEM file of certificates",
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _no_password() -> str:
    raise ValueError("the private key is encrypted")


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
