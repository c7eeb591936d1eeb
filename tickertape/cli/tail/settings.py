"""Options of ``tickertape tail``, and the address and TLS context that follow from them."""

import ssl
import warnings
from pathlib import Path
from typing import Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tickertape.errors import ConfigurationError
from tickertape.urls import parse_url

with warnings.catch_warnings():
    # The option must be called `json`; the method of BaseModel that the field hides is deprecated.
    warnings.filterwarnings("ignore", 'Field name "json"', UserWarning)

    class TailSettings(BaseSettings):
        """Options of ``tickertape tail``; each is also the variable ``TICKERTAPE_<NAME>``."""

        model_config = SettingsConfigDict(
            env_prefix="TICKERTAPE_", frozen=True, extra="ignore", hide_input_in_errors=True
        )

        url: str = Field("ws://127.0.0.1:8080/ws", description="WebSocket URL of the relay")
        subjects: str | None = Field(
            None, description="subject patterns, separated by commas; all by default"
        )
        level: str | None = Field(
            None, description="minimum level of log events: DEBUG, INFO, WARN, ERROR or CRITICAL"
        )
        mode: str | None = Field(None, description="delivery mode: live, complete or latest")
        cursor: str | None = Field(None, description="cursor after which to resume")
        state_file: Path | None = Field(
            None, description="file that stores the cursor, so that the next run resumes there"
        )
        since: str | None = Field(
            None, description="start: earliest, a duration such as 10m, or an RFC 3339 time"
        )
        json: bool = Field(False, description="print one JSON object per event")  # type: ignore[assignment]

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
            parse_url(value, ("ws", "wss"), "ws://127.0.0.1:8080/ws")
            return value

        @model_validator(mode="after")
        def _check_tls(self) -> Self:
            for name in ("ca", "cert", "key"):
                if getattr(self, name) is not None and urlsplit(self.url).scheme != "wss":
                    raise ValueError(f"{name}: ws:// does not use TLS; use wss://")
            if self.key is not None and self.cert is None:
                raise ValueError("key: set without --cert")
            return self


def tls_context(settings: TailSettings) -> ssl.SSLContext:
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


def build_url(settings: TailSettings, cursor: str | None = None) -> str:
    """Build the URL to connect to.

    Args:
        settings: options of the command.
        cursor: cursor to resume from; None starts as the settings say.
    """
    parameters = {
        "subjects": settings.subjects,
        "level": settings.level,
        "mode": settings.mode,
        "cursor": cursor,
        "since": None if cursor else settings.since,
    }
    url = urlsplit(settings.url)
    # Arguments may contain bytes that are not UTF-8, which the relay rejects with a reason.
    query = urlencode({key: value for key, value in parameters.items() if value}, errors="surrogateescape")
    return urlunsplit(url._replace(query="&".join(filter(None, (url.query, query)))))
