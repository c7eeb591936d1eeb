"""What ``tickertape demo`` can be told; nothing of it has to be."""

from pathlib import Path

from pydantic import Field, PositiveFloat
from pydantic_settings import BaseSettings, SettingsConfigDict

from tickertape.relay.settings import data_home
from tickertape.validation import Port


class DemoSettings(BaseSettings):
    """Options of ``tickertape demo``; each also as ``TICKERTAPE_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

    port: Port | None = Field(
        None, description="port of the feed and the page; else 8080, or a free one when that is taken"
    )
    ops_port: Port | None = Field(
        None, description="port of metrics and probes; else 9464, or a free one when that is taken"
    )
    data_dir: Path = Field(default_factory=data_home, description="the demo keeps its files in demo/ below")
    seed: int | None = Field(None, description="same number, same fates of the gateways; else by chance")
    seconds: PositiveFloat | None = Field(None, description="end by itself after so many seconds")

    @property
    def folder(self) -> Path:
        """Folder of everything that the demo writes."""
        return self.data_dir / "demo"
