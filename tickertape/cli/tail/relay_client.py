"""Options of commands that are clients of a relay: its address, the token, and certificates."""

import ssl
from pathlib import Path
from typing import ClassVar, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from tickertape.config.model import Settings
from tickertape.errors import ConfigurationError
from tickertape.net.loopback import loopback_url
from tickertape.urls import parse_url


class RelayClientSettings(Settings):
    """Settings of a client of a relay.

    Attributes:
        schemes: schemes that ``url`` may have.
    """

    schemes: ClassVar[tuple[str, ...]] = ("ws", "wss")

    url: str = Field(loopback_url("ws", 8080, "/ws"), description="WebSocket URL of the relay")
    token: SecretStr | None = Field(
        None,
        description="token for the relay. Prefer the file or the variable: command lines are visible to "
        "other users",
    )
    token_file: Path | None = Field(
        None, description="file with the token, read again before the token expires"
    )
    ca: Path | None = Field(
        None, description="wss: trusted CA certificates (PEM); those of the system by default"
    )
    cert: Path | None = Field(
        None,
        description="wss: client certificate and its chain (PEM), for relays that accept certificates",
    )
    key: Path | None = Field(
        None, description="wss: private key of --cert (PEM), unless the file of --cert contains it"
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, value: str) -> str:
        parse_url(value, cls.schemes, loopback_url("ws", 8080, "/ws"))
        return value

    @model_validator(mode="after")
    def _check_tls(self) -> Self:
        for name in ("ca", "cert", "key"):
            if getattr(self, name) is not None and not is_encrypted(self.url):
                scheme = urlsplit(self.url).scheme
                raise ValueError(f"{name}: {scheme}:// does not use TLS; use {scheme}s://")
        if self.key is not None and self.cert is None:
            raise ValueError("key: set without --cert")
        return self


def is_encrypted(url: str) -> bool:
    """Return whether a relay is reached with TLS."""
    return urlsplit(url).scheme in ("wss", "https")


def tls_context(settings: RelayClientSettings) -> ssl.SSLContext:
    """Return the TLS context for a relay.

    Raises:
        ConfigurationError: a file of certificates cannot be used.
    """
    try:
        tls = ssl.create_default_context(cafile=settings.ca)
    except OSError as error:
        reason = error.strerror or "no certificate found"
        raise ConfigurationError(f"--ca {settings.ca} cannot be read: {reason}", "use a PEM file") from None
    if settings.cert is not None:
        try:
            # An empty password: OpenSSL would otherwise ask on the terminal for that of an encrypted key.
            tls.load_cert_chain(settings.cert, settings.key, password="")
        except OSError as error:  # ssl.SSLError is one
            reason = getattr(error, "reason", None) or error.strerror or "no certificate found"
            raise ConfigurationError(
                f"--cert {settings.cert} cannot be used: {reason}",
                "use a PEM file with the certificate, and its unencrypted key in the same file or in --key",
            ) from None
    return tls
