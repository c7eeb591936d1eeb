"""``tickertape monitor``: run the gateway monitor, or silence a gateway."""

import asyncio
import signal
import socket
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from nats.errors import Error as NatsError
from pydantic import ConfigDict, Field

from tickertape.config.model import Positional
from tickertape.contracts.silences import find_reason_error
from tickertape.durations import parse_duration
from tickertape.errors import exit_code
from tickertape.nats import connection
from tickertape.nats.provisioning import connect_or_report
from tickertape.nats.settings import ProducerSettings
from tickertape.nats.streams import StreamsError
from tickertape.net.host_names import HostNames
from tickertape.net.listeners import ListenError
from tickertape.net.metrics_port import MetricsPort
from tickertape.process.console import print_line, print_notice
from tickertape.process.files import state_folder
from tickertape.process.signals import add_signal_handlers, stop_on_signals
from tickertape.process.tasks import Tasks, cancel_and_wait, race
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.problems import MonitorFileError
from tickertape.producers.monitor.config.watched_file import wait_until_stable
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.metrics import MonitorCollector
from tickertape.producers.monitor.monitor import PROGRAM, Monitor
from tickertape.producers.monitor.probes.result import protect
from tickertape.producers.monitor.types import Id
from tickertape.producers.sdk.publisher import Publisher
from tickertape.urls import redact_url
from tickertape.validation import checked_by


class MonitorSettings(ProducerSettings):
    """Settings of ``tickertape monitor``."""

    model_config = ConfigDict(populate_by_name=True)
    section: ClassVar[str] = "monitor"

    action: Positional[Literal["run", "silence"]] = "run"
    """Run the monitor, or silence a gateway."""
    gateway: Positional[str] = ""
    """silence: gateway, as id or type/id."""
    gateways: Path | None = None
    """YAML file with the gateways to monitor."""
    id: Id = Field(default_factory=socket.gethostname)
    """Name of this monitor; the host name by default."""
    fix_state_dir: Path = Field(default_factory=lambda: state_folder() / "fix")
    """Directory for the sequence numbers of FIX probes."""
    for_: Annotated[str, checked_by(parse_duration)] = Field(default="1h", alias="for")
    """silence: duration of the silence, such as 30m or 2h."""
    reason: str = ""
    """silence: reason for the silence."""
    end: bool = False
    """silence: end the silence of the gateway now."""
    audit: bool = False
    """silence: record who silenced the gateway in the stream AUDIT."""


async def run(settings: MonitorSettings) -> int:
    """Run until SIGTERM or SIGINT.

    Returns:
        0; 1 after a failure, or if status changes remain that NATS has not acknowledged; 2 for an invalid
        file; 77 for a permission that NATS denies.
    """
    if settings.action == "silence":
        return await _silence(settings)
    if settings.gateways is None:
        print_notice(PROGRAM, "--gateways is required; set it to the YAML file with the gateways")
        return 2
    url = redact_url(settings.nats_url)
    access = settings.access()
    protect((access.password, access.token), settings.nats_url)
    with stop_on_signals() as stop:
        await race(wait_until_stable(settings.gateways, partial(print_notice, PROGRAM)), stop.wait())
        if stop.is_set():
            return 0
        try:
            config = load(settings.gateways)
        except MonitorFileError as error:
            print_notice(PROGRAM, str(error))
            return 2
        publisher = Publisher(
            settings.nats_url,
            access=access,
            prefix=settings.subject_prefix,
            name=f"tickertape-monitor-{settings.id}",
            on_down=lambda failure: print_notice(
                PROGRAM, f"{failure.retry_message}; status changes are queued"
            ),
            on_up=lambda: print_notice(PROGRAM, f"connected to NATS at {url}"),
            on_stall=lambda line: print_notice(PROGRAM, line),
        )
        async with publisher:
            monitor = Monitor(
                settings.id,
                settings.gateways,
                config,
                publisher,
                settings.names(),
                settings.health_interval,
            )
            monitor.scheduler.context = replace(
                monitor.scheduler.context, monitor=settings.id, folder=settings.fix_state_dir
            )
            try:
                await _run_monitor(settings, monitor, stop)
            except (ListenError, StreamsError, OSError) as error:
                print_notice(PROGRAM, str(error))
                return exit_code(error)
            # The monitor has published its pending changes, or has given up on them.
            await publisher.close(0.0)
            return 1 if monitor.status_publisher.pending else 0


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
    if (problem := find_reason_error(settings.reason)) is not None:
        print_notice(PROGRAM, problem)
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
        return exit_code(error)
    finally:
        await connection.close(client)
    return 0
