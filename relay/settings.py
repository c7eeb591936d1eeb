"""Settings of the relay."""

import sys
from pathlib import Path
from typing import Annotated, ClassVar, Final, Self

from pydantic import AfterValidator, Field, NonNegativeInt, PositiveInt, model_validator
from tickertape.contracts.events import STREAM_SUBJECTS
from tickertape.contracts.subjects import check_pattern, covers, escape
from tickertape.relay.auth.client_address import Networks
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.settings import AuthSettings, auth_settings_error
from tickertape.relay.core.connection_limits import Limits

from tickertape.config.model import Mark
from tickertape.errors import ConfigurationError
from tickertape.logging_setup import Format, Level
from tickertape.nats.settings import NatsSettings, NatsUrl
from tickertape.nats.storage.watch import StoreWatch
from tickertape.nats.stream_sizes import DEFAULT_SIZES
from tickertape.net.host_names import HostNames
from tickertape.net.loopback import LOOPBACK
from tickertape.process.files import user_folder
from tickertape.text import printable
from tickertape.urls import is_loopback, parse_url
from tickertape.validation import Port, checked_by

RESERVED_DESCRIPTORS: Final = 96
"""Number of file descriptors reserved for NATS, the ops port, files, and the rejection of excess clients."""

MAX_WORKERS: Final = 64
"""Maximum number of worker processes."""


def data_home() -> Path:
    """Return the ``tickertape`` directory in ``XDG_DATA_HOME`` or its default."""
    return user_folder("XDG_DATA_HOME", ".local", "share")


def _check_source(text: str) -> str:
    if text:
        escape(text)  # raises an error that names an illegal character
    return text


# ``inf`` would be no limit, which 0 says, too.
FiniteFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NetworkList = Annotated[str, Mark.COMMAS, checked_by(Networks)]


def _check_patterns(text: str) -> str:
    for item in text.split(","):
        pattern = check_pattern(item.strip())
        if pattern != ">" and not any(covers(subjects, pattern) for subjects in STREAM_SUBJECTS):
            raise ValueError(f"{pattern!r} is not within {', '.join(STREAM_SUBJECTS)}")
    return text


def _check_monitoring_urls(text: str) -> str:
    for part in filter(None, text.split(",")):
        parse_url(part.strip(), ("http", "https"), "http://127.0.0.1:8222")
    return text


class RelaySettings(NatsSettings, AuthSettings):
    """Settings of a relay, not yet checked for safety; ``problem`` does that."""

    section: ClassVar[str] = "serve"

    nats_url: NatsUrl | None = Field(  # type: ignore[assignment]
        None, description="URL of the NATS server to read from; without it the relay starts its own"
    )
    nats_monitoring_url: Annotated[str, AfterValidator(_check_monitoring_urls)] = Field(
        "",
        description="address of the monitoring port of NATS, such as http://127.0.0.1:8222, from which the "
        "relay learns that NATS cannot store events; separate those of a cluster with commas",
    )
    host: str = Field(LOOPBACK, description="address that the feed and the dashboard listen on")
    port: Port = Field(8080, description="port of the feed and the dashboard; 0 picks a free port")
    ops_host: str = Field(LOOPBACK, description="address that metrics and health probes listen on")
    ops_port: Port = Field(9464, description="port of metrics and health probes; 0 picks a free port")
    ops_allowed_hosts: Annotated[str, Mark.COMMAS, checked_by(HostNames)] = Field(
        "",
        description="host names of the ops port, in addition to addresses, localhost and names without a "
        "dot: relay.example.com, *.example.com",
    )
    subjects: Annotated[str, Mark.COMMAS, AfterValidator(_check_patterns)] = Field(
        ">", description="subject patterns that the relay reads, separated by commas"
    )
    client_rate: FiniteFloat = Field(
        100.0, description="maximum log events per second for each client; 0: no limit"
    )
    complete_rate: FiniteFloat = Field(
        5_000.0,
        description="maximum log events per second that a token can grant in mode complete; 0: no limit",
    )
    insecure: bool = Field(False, description="allow --auth none on an address that other hosts can reach")
    allowed_origins: Annotated[str, Mark.COMMAS, checked_by(Origins)] = Field(
        "",
        description="origins of pages that may connect, in addition to the relay's own: "
        "https://app.example.com, https://*.example.com, app://name or vscode-webview://* for desktop apps, "
        "null",
    )
    trusted_proxies: NetworkList = Field(
        "",
        description="addresses or networks of proxies whose Forwarded or X-Forwarded-For header is trusted",
    )
    tls_cert: Path | None = Field(
        None, description="certificate chain of the main port (PEM file); reloaded when the file changes"
    )
    tls_key: Path | None = Field(None, description="private key of the certificate (PEM file, not encrypted)")
    hsts: NonNegativeInt = Field(
        31_536_000,
        description="seconds for which browsers are told to use only TLS on every port of this host (HSTS); "
        "sent with --tls-cert only; 0: not sent",
    )
    max_connections: NonNegativeInt = Field(
        0, description="maximum connections on the main port; 0: as many as there are file descriptors"
    )
    max_address_connections: NonNegativeInt = Field(
        1_000, description="maximum connections from one address; 0: no limit"
    )
    max_subject_connections: NonNegativeInt = Field(
        100, description="maximum sessions of one token subject, unless the token sets its own; 0: no limit"
    )
    max_unauthenticated: PositiveInt = Field(
        1_000,
        description="maximum connections without a session; beyond it the oldest one of the address that has "
        "most is closed",
    )
    connection_rate: FiniteFloat = Field(
        2_000.0, description="maximum new connections per second; 0: no limit"
    )
    address_rate: FiniteFloat = Field(
        100.0,
        description="maximum new connections and requests per second from one address; "
        "a rejected request counts as ten; 0: no limit",
    )
    message_rate: PositiveInt = Field(200, description="maximum messages per second from one client")
    unlimited_addresses: NetworkList = Field(
        "127.0.0.1,::1",
        description="addresses or networks that per-address limits do not apply to, such as NAT gateways",
    )
    audit: bool = Field(
        False,
        description="record in the stream AUDIT who connects with which grant, what is rejected, and what is "
        "reloaded",
    )
    control: bool = Field(
        False,
        description="let clients silence gateways over HTTP, with a token whose grant has 'control'; needs "
        "--auth jwt, and the NATS permission to publish watchdog.silenced.>",
    )
    log_size: PositiveInt = Field(100_000, description="maximum number of events kept in memory")
    log_bytes: NonNegativeInt = Field(
        0,
        description="maximum bytes of events kept in memory; 0: 128 MiB, or an eighth of the memory limit of "
        "each process if that is less",
    )
    max_catch_up: PositiveInt = Field(
        1_000, description="maximum number of missed events that a client in mode live is sent"
    )
    drain: FiniteFloat = Field(10.0, description="seconds that clients have to disconnect at shutdown")
    drain_delay: FiniteFloat = Field(
        2.0,
        description="seconds before --drain starts in which the relay reports 'not ready' but still "
        "accepts connections, so that load balancers notice; skipped after Ctrl-C",
    )
    log_format: Format = Field(
        "auto", description="format of the relay's own log; auto: text on a terminal, otherwise json"
    )
    log_level: Level = Field("info", description="minimum level of the relay's own log")
    log_level_file: Path | None = Field(
        None, description="file with the minimum log level, overrides --log-level; reloaded on SIGHUP"
    )
    log_ship: Annotated[str, AfterValidator(_check_source)] = Field(
        "",
        description="publish the relay's own log too, as log.<level>.<this name>; empty: do not publish",
    )
    data_dir: Path = Field(
        default_factory=data_home, description="data directory of the embedded NATS server"
    )
    nats_port: Port = Field(4222, description="port of the embedded NATS server; 0 picks a free port")

    def problem(self) -> ConfigurationError | None:
        """Return the error that prevents a relay from running with these settings, or None."""
        if (problem := auth_settings_error(self)) is not None:
            return problem
        if self.tls_client_ca is not None and self.tls_cert is None:
            return ConfigurationError("tls_client_ca: set without --tls-cert", "set --tls-cert too")
        if self.tls_key is not None and self.tls_cert is None:
            return ConfigurationError("tls_key: set without --tls-cert", "set --tls-cert too")
        if self.control and self.auth != "jwt":
            return ConfigurationError(
                "control: set without --auth jwt, and only a token can grant control", "set --auth jwt too"
            )
        if self.auth == "none" and not self.insecure and not is_loopback(self.host):
            return ConfigurationError(
                f"host: {self.host} is reachable from other hosts and --auth none accepts every client",
                "use --auth jwt or a loopback address, or add --insecure if this is intended",
            )
        return None

    def origins(self) -> Origins:
        """Return the origins that may connect.

        A relay on a loopback address without tokens also checks the host name, against DNS rebinding.
        """
        return Origins(self.allowed_origins, rebinding=self.auth != "none" or not is_loopback(self.host))

    def limits(self, connections: int) -> Limits:
        """Return the connection limits.

        Args:
            connections: number of connections that there are file descriptors for.
        """
        return Limits(
            connections=min(self.max_connections, connections) if self.max_connections else connections,
            address_connections=self.max_address_connections,
            subject_connections=self.max_subject_connections,
            unauthenticated=self.max_unauthenticated,
            connection_rate=self.connection_rate,
            address_rate=self.address_rate,
        )

    def store_watch(self) -> StoreWatch:
        """Return the watch of the store of NATS."""
        urls = [part.strip() for part in self.nats_monitoring_url.split(",") if part.strip()]
        names, access = self.names(), self.access()
        tls = access.ssl_context if access.requires_tls else None
        return StoreWatch(urls, [names.stream(key) for key in DEFAULT_SIZES], tls)

    def patterns(self) -> tuple[str, ...]:
        """Return the subject patterns to read; none covers another, as NATS rejects overlapping filters."""
        patterns = {pattern.strip() for pattern in self.subjects.split(",")}
        if ">" in patterns:
            return STREAM_SUBJECTS
        return tuple(sorted(p for p in patterns if not any(covers(other, p) for other in patterns - {p})))


class ProcessSettings(RelaySettings):
    """Settings of a relay that is a process of its own."""

    workers: int = Field(
        1,
        ge=1,
        le=MAX_WORKERS,
        description="number of processes that share the port, one for each CPU core to use",
    )


class ServeSettings(ProcessSettings):
    """Settings of ``tickertape serve``, which are safe."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.workers > 1 and sys.platform != "linux":
            raise ValueError(
                "workers: only Linux balances connections across processes; run several relays instead"
            )
        access = self.access()
        if self.nats_url is None and (access.has_credentials or access.requires_tls):
            raise ValueError(
                "credentials for NATS are set without --nats-url, but the embedded server has no users; "
                "set --nats-url, such as nats://127.0.0.1:4222"
            )
        if (problem := self.problem()) is not None:
            raise ValueError(printable(str(problem)))  # pydantic fails on bytes that are not UTF-8
        return self
