"""TLS settings of probes: trusted authorities, a client certificate, and verification that can be turned off.

Invariant: files that have been replaced are used from the next probe on.
"""

import asyncio
import contextlib
import os
import ssl
import time
from functools import lru_cache
from pathlib import Path
from typing import Final

from pydantic import model_validator
from tickertape.producers.monitor.probes.result import CannotProbe
from tickertape.producers.monitor.probes.settings import ProbeSettings
from tickertape.producers.monitor.types import FilePath, Host

from tickertape.process.files import read_regular_file

MAX_PEM_BYTES: Final = 4 * 1024 * 1024
"""Maximum size of a PEM file; the authorities of a system have a twentieth of that."""

MAX_CONTEXTS: Final = 256
"""Contexts that are kept, one for each combination of settings and versions of files."""

ACCEPTANCE_SECONDS: Final = 0.1
"""Minimum time in which a peer may reject the client after the handshake."""

CONTEXT_LIFETIME: Final = 3600.0
"""Seconds until the authorities of the system are loaded again."""


class TlsOptions(ProbeSettings):
    """TLS settings of a probe whose connection may use TLS."""

    ca: FilePath | None = None
    """File with the certificate authorities to trust; those of the system by default."""
    cert: FilePath | None = None
    """File with the client's certificate and its chain."""
    key: FilePath | None = None
    """File with the key of the client's certificate; by default the certificate's file contains it."""
    server_name: Host | None = None
    """Name to send and to verify instead of the host name."""
    skip_verify: bool = False
    """Accept every certificate, so that another server can take the gateway's place."""

    @model_validator(mode="after")
    def _check_tls(self) -> "TlsOptions":
        if self.key is not None and self.cert is None:
            raise ValueError("'key' needs 'cert'; add the file of the client's certificate")
        if self.skip_verify and self.ca is not None:
            raise ValueError("'skip_verify' ignores 'ca'; remove one of them")
        return self

    @property
    def warning(self) -> str | None:
        if not self.skip_verify:
            return None
        return "'skip_verify' accepts every certificate; set 'ca' and 'server_name' in its place"

    def ssl_context(self, protocols: tuple[str, ...] = ()) -> ssl.SSLContext:
        """Return the TLS context of these settings and the current files.

        Args:
            protocols: names of protocols to negotiate (ALPN).

        Raises:
            CannotProbe: a file cannot be used.
        """
        return create_ssl_context(self.ca, self.cert, self.key, self.skip_verify, protocols)

    async def wait_for_acceptance(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handshake: float, end: float
    ) -> None:
        """Wait as long as the peer may still reject the client's certificate, or the lack of one.

        With TLS 1.3 the client's handshake ends before the peer has received the certificate. A rejection
        arrives one round trip later, while the connection and the handshake have taken two.

        Args:
            reader, writer: connection with TLS, over which nothing has been received yet.
            handshake: seconds that the connection and the handshake have taken.
            end: time of the event loop at which the probe ends.

        Raises:
            OSError: the peer has rejected the client.
        """
        if writer.get_extra_info("ssl_object").version() != "TLSv1.3":
            return
        latest = asyncio.get_running_loop().time() + max(handshake, ACCEPTANCE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(latest, end)):
                if not await reader.read(1) and self.cert is not None:
                    raise ConnectionError("peer closed the connection when it received the certificate")


class OptionalTls(TlsOptions):
    """TLS settings of a probe that uses TLS if ``tls`` is set."""

    tls: bool = False

    @model_validator(mode="after")
    def _check_tls_is_used(self) -> "OptionalTls":
        used = self.tls or self.uses_starttls
        options = TlsOptions.model_fields.keys() - ProbeSettings.model_fields.keys()
        if not used and (unused := sorted(options & self.model_fields_set)):
            raise ValueError(f"{unused[0]!r} has no effect without TLS; add 'tls: true', or remove it")
        return self

    @property
    def uses_starttls(self) -> bool:
        """Whether the connection changes to TLS later."""
        return False

    @property
    def first_context(self) -> ssl.SSLContext | None:
        """TLS context for the beginning of the connection; None without TLS."""
        return self.ssl_context() if self.tls else None


def create_ssl_context(
    ca: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    skip_verify: bool = False,
    protocols: tuple[str, ...] = (),
) -> ssl.SSLContext:
    """Create a context, or return one that was created from the same files.

    Args:
        ca: file with the authorities to trust; those of the system by default.
        certificate, key: files of the client's certificate and its key.
        skip_verify: whether to accept every certificate.
        protocols: names of protocols to negotiate (ALPN).

    Raises:
        CannotProbe: a file cannot be used.
    """
    versions = tuple(_version(path) for path in (ca, certificate, key))
    period = int(time.monotonic() / CONTEXT_LIFETIME) if ca is None else 0
    return _create(ca, certificate, key, skip_verify, protocols, (versions, period))


# Cached, because loading the authorities of the system takes milliseconds, for each probe.
@lru_cache(MAX_CONTEXTS)
def _create(
    ca: str | None,
    certificate: str | None,
    key: str | None,
    skip_verify: bool,
    protocols: tuple[str, ...],
    version: object,
) -> ssl.SSLContext:
    """Create a context; ``version`` differs if it must be created again."""
    context = ssl.create_default_context(cafile=_readable(ca))
    # Python 3.13 would reject authorities that other clients accept.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if protocols:
        context.set_alpn_protocols(list(protocols))
    if skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        try:
            # Without a password, OpenSSL would ask for it on the terminal.
            context.load_cert_chain(str(_readable(certificate)), _readable(key), password=lambda: b"")
        except (OSError, ValueError) as error:
            files = certificate if key is None else f"{certificate} with {key}"
            raise CannotProbe(
                f"client certificate {files} cannot be loaded: {_describe(error)}",
                "use PEM files of a certificate and its key, without a password",
            ) from None
    return context


def _readable(path: str | None) -> str | None:
    """Return the path of a file if it can be read and has PEM blocks; None for None."""
    if path is None:
        return None
    try:
        text, _ = read_regular_file(Path(path), MAX_PEM_BYTES)
    except OSError as error:
        raise CannotProbe(
            f"file {path} cannot be read: {_describe(error)}", "check its path and permissions"
        ) from None
    if len(text) > MAX_PEM_BYTES:
        raise CannotProbe(f"file {path} is larger than {MAX_PEM_BYTES} bytes", "check its path")
    if b"-----BEGIN " not in text:
        raise CannotProbe(f"file {path} has no PEM block", "convert it to PEM")
    return path


def _describe(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return str(error.reason or error).lower().replace("_", " ")
    return (error.strerror or str(error)).lower() if isinstance(error, OSError) else str(error)


def _version(path: str | None) -> tuple[int, int, int] | None:
    """Return a value that differs whenever a file has changed; None without a file."""
    if path is None:
        return None
    try:
        stat = os.stat(path)
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size, stat.st_ino
