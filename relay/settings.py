"""What an operator sets for the relay: one frozen model for flags, environment and file."""

import os
import sys
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.contracts.subjects import check_pattern, covers, escape
from tickertape.relay.auth.client_address import Networks
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.settings import TokenSettings, token_settings_error
from tickertape.relay.core.connection_limits import Limits

from tickertape.errors import ConfigurationError
from tickertape.logging_setup import Format, Level
from tickertape.nats.settings import NatsSettings, NatsUrl
from tickertape.urls import is_loopback
from tickertape.validation import Port, checked_by

RESERVED_DESCRIPTORS: Final = 96
"""Not for clients: NATS, the ops port, files, and some to answer those who do not fit."""

MAX_WORKERS: Final = 64


def data_home() -> Path:
    """Folder for what a user's programs keep: ``XDG_DATA_HOME``, or its default."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tickertape"


def _source(text: str) -> str:
    if text:
        escape(text)  # says what is wrong with it
    return text


NetworkList = Annotated[str, checked_by(Networks)]


def _patterns(text: str) -> str:
    for pattern in text.split(","):
        asked = check_pattern(pattern.strip())
        if asked != ">" and not any(covers(carried, asked) for carried in STREAM_SUBJECTS):
            raise ValueError(f"{asked!r} is not within {', '.join(STREAM_SUBJECTS)}")
    return text


class RelaySettings(NatsSettings, TokenSettings):
    """What can be set about a relay, safe or not; ``tickertape check`` says which."""

    model_config = SettingsConfigDict(
        env_prefix="TICKERTAPE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    nats_url: NatsUrl | None = Field(  # type: ignore[assignment]
        None, description="NATS to read from; without it the relay starts its own"
    )
    host: str = Field("127.0.0.1", description="address of the feed and the page")
    port: Port = Field(8080, description="its port; 0 takes a free one")
    ops_host: str = Field("127.0.0.1", description="address of metrics and probes")
    ops_port: Port = Field(9464, description="its port; 0 takes a free one")
    subjects: Annotated[str, AfterValidator(_patterns)] = Field(
        ">", description="patterns that the relay takes in, with commas"
    )
    client_rate: NonNegativeFloat = Field(100.0, description="log events per second and client; 0: no limit")
    complete_rate: NonNegativeFloat = Field(
        5_000.0, description="most log events per second of a token's rate in mode complete; 0: no limit"
    )
    auth: Literal["none", "jwt"] = Field("none", description="who may connect")
    insecure: bool = Field(False, description="allow --auth none on an address that others reach")
    allowed_origins: Annotated[str, checked_by(Origins)] = Field(
        "",
        description="pages that may connect, beside the relay's own: https://app.example.com, "
        "https://*.example.com, desktop apps as app://name or vscode-webview://*, null",
    )
    trusted_proxies: NetworkList = Field(
        "",
        description="proxies whose Forwarded or X-Forwarded-For says who a client is: addresses, networks",
    )
    tls_cert: Path | None = Field(
        None, description="certificate chain of the main port, PEM; read again when it changes"
    )
    tls_key: Path | None = Field(None, description="its private key, PEM, not encrypted")
    max_connections: NonNegativeInt = Field(
        0, description="sockets on the main port; 0: as many as there are descriptors for"
    )
    max_address_connections: NonNegativeInt = Field(
        1_000, description="of them, from one address; 0: no limit"
    )
    max_subject_connections: NonNegativeInt = Field(
        100, description="sessions of one token's subject, unless the token says otherwise; 0: no limit"
    )
    max_unauthenticated: PositiveInt = Field(
        1_000, description="sockets without a session; past it the oldest of them is cut"
    )
    connection_rate: NonNegativeFloat = Field(2_000.0, description="new sockets per second; 0: no limit")
    address_rate: NonNegativeFloat = Field(
        100.0,
        description="new sockets and requests per second from one address; a refused one counts ten",
    )
    message_rate: PositiveInt = Field(200, description="messages per second from one client")
    unlimited_addresses: NetworkList = Field(
        "127.0.0.1,::1", description="addresses without limits of their own, since many are behind them"
    )
    log_size: PositiveInt = Field(100_000, description="most events in memory")
    log_bytes: PositiveInt = Field(128 * 1024 * 1024, description="most bytes of them")
    max_catch_up: PositiveInt = Field(1_000, description="most events a lagging client gets one by one")
    drain: NonNegativeFloat = Field(10.0, description="seconds that clients have to leave at shutdown")
    drain_delay: NonNegativeFloat = Field(
        2.0,
        description="seconds before that, not ready and yet accepting, for a load balancer to notice; "
        "none after a Ctrl-C",
    )
    log_format: Format = Field(
        "auto", description="of the relay's own log; auto: text on a terminal, else json"
    )
    log_level: Level = Field("info", description="least level of it")
    log_level_file: Path | None = Field(
        None, description="a file with that level, which counts instead; read again at SIGHUP"
    )
    log_ship: Annotated[str, AfterValidator(_source)] = Field(
        "", description="publish that log too, as log.<level>.<this name>; empty: do not"
    )
    data_dir: Path = Field(default_factory=data_home, description="where the relay's own NATS keeps its data")
    nats_port: Port = Field(4222, description="port of the relay's own NATS; 0 takes a free one")

    def problem(self) -> ConfigurationError | None:
        """Return the error for which no relay runs with this; None when one does."""
        if self.auth == "jwt" and (problem := token_settings_error(self)) is not None:
            return problem
        if self.tls_key is not None and self.tls_cert is None:
            return ConfigurationError("tls_key: a key without --tls-cert", "give the certificate too")
        if self.auth == "none" and not self.insecure and not is_loopback(self.host):
            return ConfigurationError(
                f"host: {self.host} is reachable by others and --auth none lets anybody in",
                "use --auth jwt or a loopback address, or say --insecure if it is meant",
            )
        return None

    def origins(self) -> Origins:
        """Pages that may connect. On a loopback address without tokens, none whose name merely leads here."""
        return Origins(self.allowed_origins, rebinding=self.auth == "jwt" or not is_loopback(self.host))

    def limits(self, connections: int) -> Limits:
        """What clients may take.

        Args:
            connections: for how many there are descriptors.
        """
        return Limits(
            connections=min(self.max_connections, connections) if self.max_connections else connections,
            address_connections=self.max_address_connections,
            subject_connections=self.max_subject_connections,
            unauthenticated=self.max_unauthenticated,
            connection_rate=self.connection_rate,
            address_rate=self.address_rate,
        )

    def patterns(self) -> tuple[str, ...]:
        """What the relay takes in, as patterns of the stream; none covers another, which NATS refuses."""
        asked = {pattern.strip() for pattern in self.subjects.split(",")}
        if ">" in asked:
            return STREAM_SUBJECTS
        return tuple(sorted(one for one in asked if not any(covers(other, one) for other in asked - {one})))


class ServeSettings(RelaySettings):
    """Options of ``tickertape serve``; each also as ``TICKERTAPE_<NAME>``."""

    workers: int = Field(
        1, ge=1, le=MAX_WORKERS, description="processes that share the port, one for each core to be used"
    )

    @model_validator(mode="after")
    def _runs(self) -> Self:
        if self.workers > 1 and sys.platform != "linux":
            raise ValueError("workers: only Linux spreads connections over processes; run several relays")
        if (problem := self.problem()) is not None:
            raise ValueError(str(problem))
        return self
