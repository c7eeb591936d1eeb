"""Settings for NATS: address, credentials, certificates, names and sizes of streams."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from tickertape.config.model import Mark, Settings
from tickertape.names import Names
from tickertape.nats.connection import DEFAULT_URL
from tickertape.nats.credentials import INBOX_PREFIX, Access
from tickertape.nats.stream_sizes import SizesText, parse_sizes
from tickertape.net.host_names import HostNames
from tickertape.net.loopback import LOOPBACK
from tickertape.urls import parse_url, redact_url
from tickertape.validation import Port, checked_by


def _checked_url(value: str) -> str:
    for part in value.split(","):
        parse_url(part.strip(), ("nats", "tls", "ws", "wss"), DEFAULT_URL, user=True)
    return value


NatsUrl = Annotated[str, Mark.COMMAS, AfterValidator(_checked_url)]
SubjectPrefix = Annotated[str, checked_by(Names)]


class NatsSettings(Settings):
    """Settings of every command that connects to NATS."""

    nats_url: NatsUrl = DEFAULT_URL
    """Address of NATS, such as nats://host:4222; separate several with commas."""
    nats_ca: Path | None = None
    """CA certificates (PEM) that the server certificate must chain to; makes TLS mandatory."""
    nats_cert: Path | None = None
    """Client certificate (PEM); makes TLS mandatory."""
    nats_key: Path | None = None
    """Private key (PEM) of the client certificate."""
    nats_creds: Path | None = None
    """Credentials file (.creds) with the JWT and nkey seed of the user."""
    nats_nkey_file: Path | None = None
    """File with the nkey seed of the user."""
    nats_user: str | None = None
    """Name of the user, for password authentication."""
    nats_password: SecretStr | None = None
    """Password of the user. Prefer the file or the variable: command lines are visible to other users."""
    nats_password_file: Path | None = None
    """File with the password of the user."""
    nats_token: SecretStr | None = None
    """Token, for servers that use token authentication. Prefer the file or the variable."""
    nats_token_file: Path | None = None
    """File with the token."""
    nats_inbox_prefix: str = INBOX_PREFIX
    """First tokens of the subjects on which replies arrive."""
    subject_prefix: SubjectPrefix = ""
    """First tokens of every subject in NATS; WebSocket clients do not see them."""
    streams_max_bytes: SizesText = Field(
        "",
        description="maximum sizes of streams on creation, such as EVENTS=256MiB,LATEST=32MiB; the defaults "
        "sum to 2048 MiB",
    )

    def names(self) -> Names:
        """Return the names of the subjects and streams of this deployment, and the sizes of the streams."""
        return Names(self.subject_prefix, parse_sizes(self.streams_max_bytes))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if name == "nats_url" and value else value

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        access = self.access()
        url = self.nats_url or ""
        if access.has_credentials and "@" in url:
            raise ValueError(
                f"NATS address {redact_url(url)} contains a user, and other credentials are set; set only one"
            )
        # ``wss://`` does not contain ``ws://``.
        if access.requires_tls and "ws://" in url:
            raise ValueError(
                f"NATS address {redact_url(url)} does not use TLS, but certificates are set; use wss://"
            )
        return self

    def access(self) -> Access:
        """Return the credentials and certificates for NATS.

        Raises:
            ValueError: the settings contradict each other, which those of a validated model do not.
        """
        return Access(
            ca=self.nats_ca,
            cert=self.nats_cert,
            key=self.nats_key,
            creds=self.nats_creds,
            nkey_file=self.nats_nkey_file,
            user=self.nats_user,
            password=self.nats_password.get_secret_value() if self.nats_password else None,
            password_file=self.nats_password_file,
            token=self.nats_token.get_secret_value() if self.nats_token else None,
            token_file=self.nats_token_file,
            inbox_prefix=self.nats_inbox_prefix,
        )


class ProducerSettings(NatsSettings):
    """Settings that the monitor and the shipper have in common."""

    health_interval: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two health events on system.health.>."""
    metrics_host: str = LOOPBACK
    """Address on which /metrics is served."""
    metrics_port: Port = 0
    """Port on which /metrics is served; 0 disables it."""
    metrics_allowed_hosts: Annotated[str, Mark.COMMAS, checked_by(HostNames)] = ""
    """Host names of /metrics, comma-separated; addresses and names without a dot are always accepted."""
