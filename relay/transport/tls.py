"""TLS certificate of the main port and the CA of client certificates, reloaded when their files change.

A reload replaces the context, so that no client resumes a TLS session whose certificate an earlier CA issued.
"""

import logging
import re
import ssl
from pathlib import Path
from typing import Final

from tickertape.errors import ConfigurationError
from tickertape.process.files import Stamp, read_stamp

log = logging.getLogger("tickertape.tls")

POLL_INTERVAL: Final = 5
"""Seconds between two checks of the files for changes."""

CIPHERS: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Cipher suites of TLS 1.2, as OpenSSL names them."""

_CRL: Final = b"-----BEGIN X509 CRL-----"
_READ: Final = frozenset({b"-----BEGIN CERTIFICATE-----", _CRL})
"""First lines of PEM blocks of a file of authorities."""

_BLOCK: Final = re.compile(rb"^[ \t]*-+[ \t]*BEGIN\b.*", re.IGNORECASE | re.MULTILINE)


class CertificateError(ConfigurationError):
    """Error for a certificate or key that cannot be used."""


class Certificate:
    """Certificate with its key, and the TLS context for new connections.

    Args:
        certificate: PEM file with the certificate, followed by its chain.
        key: PEM file with the private key; None if the certificate file contains it.
        client_ca: PEM file with the CA of client certificates; None requests none.
        required: whether clients need a certificate to connect.

    Attributes:
        context: current TLS context; a reload replaces it.

    Raises:
        CertificateError: the files cannot be read, or do not match.
    """

    def __init__(
        self, certificate: Path, key: Path | None, client_ca: Path | None = None, *, required: bool = False
    ) -> None:
        self._certificate = certificate
        self._key = key
        self._client_ca = client_ca
        self._required = required
        self._last_stamp = self._stamp()
        self.context = self._build_context()

    def __repr__(self) -> str:
        return f"Certificate({self._certificate})"

    def get_context(self) -> ssl.SSLContext:
        """Return the TLS context for a new connection."""
        return self.context

    def refresh(self) -> bool:
        """Load the files if they changed; open connections keep their certificate.

        A new certificate that cannot be used is logged once, and the previous one stays in use.

        Returns:
            True if a new certificate is in use.
        """
        stamp = self._stamp()
        if stamp == self._last_stamp:
            return False
        # Before loading: a broken pair is logged once, not at each poll, and a change during the load is
        # noticed by the next poll.
        self._last_stamp = stamp
        try:
            self.context = self._build_context()
        except (CertificateError, OSError) as error:
            log.error("%s; the previous certificate stays in use", error)
            return False
        log.info("loaded a new certificate from %s", self._certificate)
        return True

    async def reload(self) -> str:
        """Load the files, changed or not, and return a description of what was loaded.

        Raises:
            CertificateError: the certificate cannot be used, and the previous one stays in use.
        """
        self._last_stamp = self._stamp()
        self.context = self._build_context()
        return f"certificate {self._certificate}"

    def _stamp(self) -> list[Stamp | None]:
        """Return the stamp of each file; None for a missing file."""
        stamps: list[Stamp | None] = []
        for path in filter(None, (self._certificate, self._key, self._client_ca)):
            try:
                stamps.append(read_stamp(path))
            except OSError:
                stamps.append(None)
        return stamps

    def _build_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        # Suites of TLS 1.2 with forward secrecy and authenticated encryption; those of TLS 1.3 all have both.
        context.set_ciphers(CIPHERS)
        # Compression would reveal secrets by the length of a record (CRIME), and each renegotiation costs the
        # relay a handshake.
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            self._load(context)
        except ssl.SSLError as error:
            raise CertificateError(
                f"cannot use certificate {self._certificate}: {error.reason or error}",
                "set --tls-cert to a PEM chain and --tls-key to its unencrypted private key",
            ) from None
        except (OSError, _EncryptedError) as error:
            raise CertificateError(
                f"cannot read certificate {self._certificate}: {error}",
                "check --tls-cert and --tls-key",
            ) from None
        if self._client_ca is not None:
            self._request_certificates(context, self._client_ca)
        return context

    def _request_certificates(self, context: ssl.SSLContext, ca: Path) -> None:
        try:
            lists = _has_revocation_lists(ca.read_bytes())
            context.load_verify_locations(ca)
            if lists:
                # OpenSSL would ignore them otherwise, which is not what an operator who adds one expects. The
                # whole chain, since an intermediate authority may be revoked, too.
                context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
            raise CertificateError(
                f"cannot use client CA {ca}: {reason}", "set --tls-client-ca to a PEM file of certificates"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED if self._required else ssl.CERT_OPTIONAL

    def _load(self, context: ssl.SSLContext) -> None:
        # Without a password callback, OpenSSL would prompt on the terminal for an encrypted key and block.
        context.load_cert_chain(self._certificate, self._key, password=_reject_password)


def _has_revocation_lists(data: bytes) -> bool:
    """Return whether a file of authorities contains lists of revoked certificates.

    Raises:
        ValueError: OpenSSL would skip a part of the file in silence, which may be such a list.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise ValueError("it is not PEM; convert certificates and revocation lists from DER")
    first_lines = {line.rstrip() for line in _BLOCK.findall(data)}
    if not first_lines <= _READ:
        raise ValueError("it has a block other than CERTIFICATE and X509 CRL")
    return _CRL in first_lines


class _EncryptedError(Exception):
    """Error for a private key that is encrypted."""


def _reject_password() -> str:
    raise _EncryptedError("its private key is encrypted")
