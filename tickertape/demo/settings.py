"""Settings of ``tickertape demo``, all of them optional."""

from pathlib import Path
from typing import ClassVar

from pydantic import Field, PositiveFloat

from tickertape.config.model import Settings
from tickertape.relay.settings import data_home
from tickertape.validation import Port


class DemoSettings(Settings):
    """Settings of ``tickertape demo``."""

    section: ClassVar[str] = "demo"

    port: Port | None = Field(
        None, description="port of the feed and the page; default: 8080, or a free port if 8080 is in use"
    )
    ops_port: Port | None = Field(
        None, description="port of metrics and health probes; default: 9464, or a free port if 9464 is in use"
    )
    data_dir: Path = Field(
        default_factory=data_home, description="directory for state; the demo uses demo/ in it"
    )
    seed: int | None = Field(
        None, description="seed of the gateways' failures, to reproduce a run; default: random"
    )
    seconds: PositiveFloat | None = Field(
        None, description="seconds after which the demo stops; default: on Ctrl-C"
    )

    @property
    def folder(self) -> Path:
        """Folder of all files that the demo writes."""
        return self.data_dir / "demo"
