"""What an operator sets for the relay: one frozen model for flags, environment and file."""

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveInt, model_validator
from pydantic_settings import SettingsConfigDict

from contracts.connect import NatsSettings, NatsUrl
from contracts.subjects import STREAM_SUBJECTS, check_pattern, covers

Port = Annotated[int, Field(ge=0, le=65_535)]


def data_home() -> Path:
    """Folder for what a user's programs keep: ``XDG_DATA_HOME``, or its default."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "tickertape"


def is_loopback(host: str) -> bool:
    """True when an address is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _patterns(text: str) -> str:
    for pattern in text.split(","):
        asked = check_pattern(pattern.strip())
        if asked != ">" and not any(covers(carried, asked) for carried in STREAM_SUBJECTS):
            raise ValueError(f"{asked!r} is not within {', '.join(STREAM_SUBJECTS)}")
    return text


class ServeSettings(NatsSettings):
    """Options of ``tickertape serve``; each also as ``TICKERTAPE_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

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
    auth: Literal["none", "jwt"] = Field("none", description="who may connect")
    insecure: bool = Field(False, description="allow --auth none on an address that others reach")
    log_size: PositiveInt = Field(100_000, description="most events in memory")
    log_bytes: PositiveInt = Field(128 * 1024 * 1024, description="most bytes of them")
    max_catch_up: PositiveInt = Field(1_000, description="most events a lagging client gets one by one")
    drain: NonNegativeFloat = Field(10.0, description="seconds that clients have to leave at shutdown")
    data_dir: Path = Field(default_factory=data_home, description="where the relay's own NATS keeps its data")
    nats_port: Port = Field(4222, description="port of the relay's own NATS; 0 takes a free one")

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.auth == "jwt":
            raise ValueError("auth: jwt is not in this version; use --auth none on a loopback address")
        if not self.insecure and not is_loopback(self.host):
            raise ValueError(
                f"host: {self.host} is reachable by others and --auth none lets anybody in; "
                "use a loopback address, or say --insecure if it is meant"
            )
        return self

    def patterns(self) -> tuple[str, ...]:
        """What the relay takes in, as patterns of the stream; none covers another, which NATS refuses."""
        asked = {pattern.strip() for pattern in self.subjects.split(",")}
        if ">" in asked:
            return STREAM_SUBJECTS
        return tuple(sorted(one for one in asked if not any(covers(other, one) for other in asked - {one})))
