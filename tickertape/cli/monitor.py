"""``tickertape monitor``: run the gateway monitor, or silence a gateway."""

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
from tickertape.net.host_names import HostNames
from tickertape.net.listeners import ListenError
from tickertape.net.metrics_port import MetricsPort
from tickertape.process.console import print_line, print_notice
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
    """Options of ``tickertape monitor``."""

    model_config = SettingsConfigDict(
        env_prefix="TICKERTAPE_",
        env_prefix_target="all",  # also for ``for``, which is the alias of a field
        frozen=True,
        extra="ignore",
        populate_by_name=True,
    )

    action: CliPositionalArg[Literal["run", "silence"]] = "run"
    """Run the monitor, or silence a gateway."""
    gateway: CliPositionalArg[str] = ""
    """silence: gateway, as id or type/id."""
    config: Path | None = None
    """YAML file with the gateways to monitor."""
    id: Id = Field(default_factory=socket.gethostname)
    """Name of this monitor; the host name by default."""
    health_interval: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two health events on system.health.monitor.<id>."""
    metrics_host: str = "127.0.0.1"
    """Address on which /metrics is served."""
    metrics_port: Port = 0
    """Port on which /metrics is served; 0 disables it."""
    metrics_allowed_hosts: Annotated[str, checked_by(HostNames)] = ""
    """Host names of /metrics, comma-separated; addresses and names without a dot are always accepted."""
    for_: Annotated[str, checked_by(parse_duration)] = Field(default="1h", alias="for")
    """silence: duration of the silence, such as 30m or 2h."""
    reason: str = ""
    """silence: reason for the silence."""
    end: bool = False
    """silence: end the silence of the gateway now."""
    audit: bool = False
    """silence: record who silenced the gateway in the stream AUDIT."""


async def run(settings: MonitorSettings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    if settings.action == "silence":
        return await _silence(settings)
    if settings.config is None:
        print_notice(PROGRAM, "--config is required; set it to the YAML file with the gateways")
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
                PROGRAM, f"{failure.retry_message}; status changes are queued"
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
                await _run_monitor(settings, monitor, stop)
            except (ListenError, StreamsError, OSError) as error:
                print_notice(PROGRAM, str(error))
                return 1
            # The monitor has published its pending changes, or has given up on them.
            await publisher.close(0.0)
    return 0


async def _run_monitor(settings: MonitorSettings, monitor: Monitor, stop: asyncio.Event) -> None:
    """Run a monitor until ``stop`` is set or the monitor fails.

    Raises:
        ListenError: the metrics port is not available, or its server has stopped.
        StreamsError: JetStream is not available, or a stream violates the contract.
        OSError: the credentials cannot be read.
    """
    port = None
    if settings.metrics_port:
        names = HostNames(settings.metrics_allowed_hosts)
        port = MetricsPort(settings.metrics_host, settings.metrics_port, MonitorCollector(monitor), names)
    remove_handlers = add_signal_handlers(lambda _: monitor.request_reload(), signal.SIGHUP)
    try:
        async with Tasks() as tasks:
            task = tasks.start(monitor.run(stop), name="monitor")
            if port is not None:
                tasks.start(port.watch(), name="metrics").add_done_callback(lambda _: stop.set())
            await race(task, stop.wait())
            if not monitor.started:
                await cancel_and_wait(task)  # still waiting for NATS
            # Its exception is raised when ``tasks`` is left, like those of the other tasks.
            await asyncio.wait({task})
    finally:
        remove_handlers()


async def _silence(settings: MonitorSettings) -> int:
    if not settings.gateway:
        print_notice(
            PROGRAM,
            "silence needs a gateway, such as 'tickertape monitor silence ctp/main --for 2h'",
        )
        return 2
    seconds = 0.0 if settings.end else parse_duration(settings.for_)
    client = await connect_or_report(PROGRAM, settings)
    if client is None:
        return 1
    try:
        names = settings.names()
        line = await silences.set_silence(
            client, names, settings.gateway, seconds, settings.reason, audit=settings.audit
        )
        print_line(line)
    except (StreamsError, NatsError) as error:
        print_notice(PROGRAM, str(error))
        return 1
    finally:
        await connection.close(client)
    return 0
