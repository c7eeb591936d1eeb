"""The gateway monitor as a program: started, reloaded, stopped; and the command that silences a gateway."""

import asyncio
import signal
import socket
from pathlib import Path
from typing import Annotated, Literal

from nats.errors import Error as NatsError
from pydantic import Field
from pydantic_settings import CliPositionalArg, SettingsConfigDict

from tickertape.durations import parse_duration
from tickertape.nats import connection
from tickertape.nats.provisioning import connect_or_report
from tickertape.nats.settings import NatsSettings
from tickertape.nats.streams import StreamsError
from tickertape.process.console import print_notice
from tickertape.process.listeners import ListenError
from tickertape.process.metrics_port import MetricsPort
from tickertape.process.signals import add_signal_handlers, stop_on_signals
from tickertape.process.tasks import Tasks, cancel_and_wait, race
from tickertape.producers.monitor.config.loader import MonitorFileError, load
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.metrics import MonitorCollector
from tickertape.producers.monitor.monitor import PROGRAM, Monitor
from tickertape.producers.monitor.types import Id
from tickertape.producers.sdk.publisher import Publisher
from tickertape.urls import redact_url
from tickertape.validation import Port, checked_by


class MonitorSettings(NatsSettings):
    """Watch gateways and publish each change of their status; or silence one of them for a while."""

    model_config = SettingsConfigDict(
        env_prefix="TICKERTAPE_", frozen=True, extra="ignore", populate_by_name=True
    )

    action: CliPositionalArg[Literal["run", "silence"]] = "run"
    """Watch the gateways, or silence one of them."""
    gateway: CliPositionalArg[str] = ""
    """With silence: the gateway's id, or type/id."""
    config: Path | None = None
    """The YAML file with the gateways."""
    id: Id = Field(default_factory=socket.gethostname)
    """Name of this monitor."""
    health_interval: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two events on system.health.monitor.<id>."""
    metrics_host: str = "127.0.0.1"
    """Address of /metrics."""
    metrics_port: Port = 0
    """Port of /metrics; 0 serves none."""
    for_: Annotated[str, checked_by(parse_duration)] = Field(default="1h", alias="for")
    """With silence: how long, such as 30m or 2h."""
    reason: str = ""
    """With silence: the reason, for those who ask."""
    end: bool = False
    """With silence: end it now."""


async def run(settings: MonitorSettings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    if settings.action == "silence":
        return await _silence(settings)
    if settings.config is None:
        print_notice(PROGRAM, "which gateways? Give --config FILE")
        return 2
    try:
        config = load(settings.config)
    except MonitorFileError as error:
        print_notice(PROGRAM, str(error))
        return 2
    url = redact_url(settings.nats_url)
    with stop_on_signals() as stop:
        publisher = Publisher(
            settings.nats_url,
            access=settings.access(),
            prefix=settings.subject_prefix,
            name=f"tickertape-monitor-{settings.id}",
            on_down=lambda failure: print_notice(
                PROGRAM, f"{failure.retry_message}; changes are kept until it is back"
            ),
            on_up=lambda: print_notice(PROGRAM, f"connected to NATS at {url}"),
        )
        async with publisher:
            monitor = Monitor(
                settings.id,
                settings.config,
                config,
                publisher,
                settings.names(),
                settings.health_interval,
            )
            try:
                await _work(settings, monitor, stop)
            except (ListenError, StreamsError, OSError) as error:
                print_notice(PROGRAM, str(error))
                return 1
            await publisher.close(0.0)
    return 0


async def _work(settings: MonitorSettings, monitor: Monitor, stop: asyncio.Event) -> None:
    """Let a monitor work until ``stop`` is set, or what it needs is lost.

    Raises:
        ListenError: the port for metrics cannot be listened on, or is not any more.
        StreamsError: JetStream cannot serve.
        OSError: the credentials cannot be read.
    """
    port = None
    if settings.metrics_port:
        port = MetricsPort(settings.metrics_host, settings.metrics_port, MonitorCollector(monitor))
    unheed = add_signal_handlers(lambda _: monitor.request_reload(), signal.SIGHUP)
    try:
        async with Tasks() as tasks:
            working = tasks.start(monitor.run(stop), name="monitor")
            if port is not None:
                tasks.start(port.watch(), name="metrics").add_done_callback(lambda _: stop.set())
            await race(working, stop.wait())
            if not monitor.started:
                await cancel_and_wait(working)  # still waiting for NATS
            await asyncio.wait({working})
    finally:
        unheed()


async def _silence(settings: MonitorSettings) -> int:
    if not settings.gateway:
        print_notice(PROGRAM, "which gateway? tickertape monitor silence GATEWAY --for 2h --reason '...'")
        return 2
    seconds = 0.0 if settings.end else parse_duration(settings.for_)
    client = await connect_or_report(PROGRAM, settings)
    if client is None:
        return 1
    try:
        names = settings.names()
        print(await silences.set_silence(client, names, settings.gateway, seconds, settings.reason))
    except (StreamsError, NatsError) as error:
        print_notice(PROGRAM, str(error))
        return 1
    finally:
        await connection.close(client)
    return 0
