"""What an operator sets for NATS: address, credentials, certificates, names and sizes of streams."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from tickertape.names import Names
from tickertape.nats.connection import DEFAULT_URL
from tickertape.nats.credentials import INBOX_PREFIX, Access
from tickertape.nats.stream_sizes import SizesText, parse_sizes
from tickertape.urls import parse_url, redact_url
from tickertape.validation import checked_by


def _checked_url(value: str) -> str:
    for part in value.split(","):
        parse_url(part.strip(), ("nats", "tls", "ws", "wss"), DEFAULT_URL, user=True)
    return value


NatsUrl = Annotated[str, AfterValidator(_checked_url)]
SubjectPrefix = Annotated[str, checked_by(Names)]


class NatsSettings(BaseSettings):
    """Options of every command that talks to NATS; each also as ``TICKERTAPE_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix="TICKERTAPE_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    nats_url: NatsUrl = DEFAULT_URL
    """Address of NATS; several with commas."""
    nats_ca: Path | None = None
    """Certificates (PEM) that vouch for the server; TLS is then required."""
    nats_cert: Path | None = None
    """Certificate (PEM) of this program."""
    nats_key: Path | None = None
    """Its private key (PEM)."""
    nats_creds: Path | None = None
    """A .creds file."""
    nats_nkey_file: Path | None = None
    """File with the seed of an nkey user."""
    nats_user: str | None = None
    """Name of a user with a password."""
    nats_password: SecretStr | None = None
    """The password; others on this machine see what is on a command line."""
    nats_password_file: Path | None = None
    """File with the password."""
    nats_token: SecretStr | None = None
    """The token of a server that has one for all."""
    nats_token_file: Path | None = None
    """File with the token."""
    nats_inbox_prefix: str = INBOX_PREFIX
    """First tokens of the subjects on which answers come."""
    subject_prefix: SubjectPrefix = ""
    """First tokens of every subject in NATS; clients never see it."""
    streams_max_bytes: SizesText = Field(
        "",
        description="sizes of streams that are created, as in EVENTS=256MiB,LATEST=32MiB; 1472 MiB else",
    )

    def names(self) -> Names:
        """The deployment: names of its subjects and streams, and their sizes."""
        return Names(self.subject_prefix, parse_sizes(self.streams_max_bytes))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, redact_url(value) if name == "nats_url" and value else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        access = self.access()
        url = self.nats_url or ""
        if access.has_credentials and "@" in url:
            raise ValueError(
                f"NATS address {redact_url(url)} holds a user, and there are other credentials; give one"
            )
        if access.requires_tls and "ws://" in url:
            raise ValueError(
                f"NATS address {redact_url(url)} has no TLS, and certificates are given; write wss://"
            )
        return self

    def access(self) -> Access:
        """How to reach NATS with these settings.

        Raises:
            ValueError: they contradict each other; those of a valid model do not.
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
