"""The main port's certificate: checked at the start, read again when its file changes."""

import logging
import ssl
from pathlib import Path
from typing import Final

from tickertape.errors import ConfigurationError

log = logging.getLogger("tickertape.tls")

POLL_INTERVAL: Final = 5
"""Seconds between two looks at the files."""


class CertificateError(ConfigurationError):
    """A certificate cannot be used."""


class Certificate:
    """A certificate with its key, and the context that new connections are made with.

    Args:
        certificate: PEM file, the chain behind it.
        key: PEM file of its private key; None when it stands in the same file.

    Raises:
        CertificateError: they cannot be read, or do not belong together.
    """

    def __init__(self, certificate: Path, key: Path | None) -> None:
        self._certificate = certificate
        self._key = key
        self._seen = self._stamp()
        self.context = self._made()

    def __repr__(self) -> str:
        return f"Certificate({self._certificate})"

    def refresh(self) -> bool:
        """Use what the files hold now, if they changed; connections that are open keep what they have.

        A new certificate that cannot be used is told once, and the old one stays.

        Returns:
            True when a new one is in use.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self._replace()
        except (CertificateError, OSError) as error:
            log.error("%s; the former certificate stays in use", error)
            return False
        log.info("new certificate from %s", self._certificate)
        return True

    async def reload(self) -> str:
        """Use what the files hold now, changed or not; what was read.

        Raises:
            CertificateError: it cannot be used, and the old one stays.
        """
        self._seen = self._stamp()
        self._replace()
        return f"certificate {self._certificate}"

    def _replace(self) -> None:
        # Tried on a context of its own first: a half-written pair must not reach the one that is in use.
        self._made()
        self._load(self.context)

    def _stamp(self) -> list[tuple[int, int, int] | None]:
        found: list[tuple[int, int, int] | None] = []
        for path in filter(None, (self._certificate, self._key)):
            try:
                status = path.stat()
            except OSError:
                found.append(None)
            else:
                found.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return found

    def _made(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        context.set_alpn_protocols(["http/1.1"])
        try:
            self._load(context)
        except ssl.SSLError as error:
            raise CertificateError(
                f"certificate {self._certificate} cannot be used: {error.reason or error}",
                "give a PEM chain with --tls-cert and its unencrypted key with --tls-key",
            ) from None
        except (OSError, _EncryptedError) as error:
            raise CertificateError(
                f"certificate {self._certificate} cannot be read: {error}",
                "check --tls-cert and --tls-key",
            ) from None
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        # Without a password of ours, an encrypted key would ask on the terminal, and wait for ever.
        context.load_cert_chain(self._certificate, self._key, password=_no_password)


class _EncryptedError(Exception):
    """A key asks for a password."""


def _no_password() -> str:
    raise _EncryptedError("its key is encrypted")
