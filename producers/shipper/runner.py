"""Runner of the shipper: assembles its parts, publishes its health and metrics, and reports the result."""

import asyncio
import contextlib
import functools
from collections.abc import Awaitable, Callable
from typing import Final

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from tickertape.producers.sdk.errors import PublishDenied, PublishError
from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper import status as shipper_status
from tickertape.producers.shipper.otlp_input import open_receiver
from tickertape.producers.shipper.parsing.parser import ParserCounts
from tickertape.producers.shipper.settings import ShipSettings
from tickertape.producers.shipper.shipper import Shipper
from tickertape.producers.shipper.sinks.dedupe import DedupeSink
from tickertape.producers.shipper.sinks.local_state import LocalState
from tickertape.producers.shipper.sinks.sink import Sink
from tickertape.producers.shipper.sources.inputs import PROGRAM, Inputs

from tickertape.errors import EXIT_FAILURE
from tickertape.nats.errors import DENIAL_REPORT_INTERVAL
from tickertape.net.host_names import HostNames
from tickertape.net.metrics_port import MetricsPort
from tickertape.process import shutdown
from tickertape.process.console import is_terminal, print_notice
from tickertape.process.tasks import Tasks, run_until_stopped
from tickertape.process.terminal import Terminal
from tickertape.rate_limit import RepeatFilter

PROGRESS_INTERVAL: Final = 0.1
"""Seconds between two updates of the progress bar."""


async def run_shipper(
    settings: ShipSettings,
    sink: Sink,
    publisher: Publisher | None,
    stop: asyncio.Event,
    limit: int,
    state: LocalState | None = None,
) -> int:
    """Ship until the input ends or ``stop`` is set.

    Args:
        settings: options of the program.
        sink: destination of batches.
        publisher: publishes the health of the shipper; None for none.
        stop: ends the shipper once the batches in flight are acknowledged.
        limit: maximum size of an event in bytes that the server accepts.
        state: state on this host; None keeps none.

    Returns:
        The exit code: 0, that of the signal if the input should have ended, and has not, or that of a failure
        if a file could not be read with ``once``.

    Raises:
        ShipError: another process ships the same files.
        GivenPathError: a path without wildcards is not that of a file.
        CheckpointError: the state cannot be saved.
        ListenError: the metrics port cannot be opened, or listening on it has failed.
    """
    # Loading waits for NATS for as long as it takes, so a signal must be able to end it.
    stored = await run_until_stopped(stop.wait(), sink.load())
    if stored is None:
        return stopped_code(settings)
    counts = ParserCounts()
    async with Tasks() as tasks, contextlib.AsyncExitStack() as stack:
        inputs = Inputs(
            settings, stored, counts, state, tasks, stack, stop=stop,
            # The message ids of DedupeSink contain the generation, which must be stored before any line is
            # sent.
            announce_generations=isinstance(sink, DedupeSink),
        )  # fmt: skip
        warn = functools.partial(print_notice, PROGRAM)
        shipper = Shipper(inputs.source, sink, inputs.watcher, limit, warn)
        if publisher is not None:
            await open_receiver(settings, publisher, shipper, counts, limit, tasks, stack)
        if settings.metrics_port:
            collector = shipper_status.ShipCollector(shipper, counts)
            names = HostNames(settings.metrics_allowed_hosts)
            port = MetricsPort(settings.metrics_host, settings.metrics_port, collector, names)
            # The watch ends only with an error, which leaving ``tasks`` raises.
            tasks.start(port.watch()).add_done_callback(lambda _: stop.set())
        if publisher is not None:
            denials = RepeatFilter(DENIAL_REPORT_INTERVAL)
            publish_health = functools.partial(_publish_health, settings, shipper, counts, publisher, denials)
            tasks.start(_publish_health_periodically(settings.health_interval, publish_health))
        if settings.once and is_terminal():
            tasks.start(_show_progress(shipper))
        finished = await run_until_stopped(stop.wait(), _ship_all(shipper, inputs.ended, settings))
        # The last health event shows the final numbers, so it follows the last batch.
        if publisher is not None:
            await publish_health()
            print_notice(PROGRAM, _summary(shipper, counts))
    if finished and settings.once and inputs.source.unreadable:
        return EXIT_FAILURE  # their lines are not shipped, and each is reported
    return 0 if finished else stopped_code(settings)


def stopped_code(settings: ShipSettings) -> int:
    """Return the exit code of a shipper that a signal has stopped."""
    follows = not settings.once and not settings.is_piped
    return 0 if follows else shutdown.interrupted_code()


async def _ship_all(shipper: Shipper, input_ended: Callable[[], bool], settings: ShipSettings) -> bool:
    await shipper.run(input_ended, once=settings.once or settings.is_piped)
    return True


async def _publish_health_periodically(interval: float, publish: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(interval)
        await publish()


async def _publish_health(
    settings: ShipSettings,
    shipper: Shipper,
    counts: ParserCounts,
    publisher: Publisher,
    denials: RepeatFilter,
) -> None:
    """Publish the health of the shipper, unless NATS is unreachable."""
    try:
        async with asyncio.timeout(min(settings.health_interval, 2.0)):
            await publisher.publish(shipper_status.health_event(shipper, counts, settings.host))
    except PublishDenied as error:
        if denials.allow(str(error), asyncio.get_running_loop().time()):
            print_notice(PROGRAM, str(error))
    except (TimeoutError, PublishError):
        pass  # reported by the connection, or by the batches that fail likewise


async def _show_progress(shipper: Shipper) -> None:
    """Show a progress bar of the bytes that are shipped."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Terminal(stderr=True), transient=True) as progress:
        task = progress.add_task("shipping", total=None)
        total = 0
        while True:
            lag = sum(stream.lag for stream in shipper.streams)
            total = max(total, lag)
            progress.update(task, total=total or None, completed=total - lag)
            await asyncio.sleep(PROGRESS_INTERVAL)


def _summary(shipper: Shipper, counts: ParserCounts) -> str:
    streams = shipper.streams
    below_level = counts.below_level + sum(stream.throttle.below_level for stream in streams)
    suppressed = counts.suppressed + sum(stream.throttle.suppressed for stream in streams)
    parts = [f"events shipped: {sum(shipper.shipped.values())}, of {counts.lines} lines"]
    for count, label in (
        (
            below_level,
            "below the minimum level",
        ),
        (
            suppressed,
            "suppressed by a rate limit",
        ),
        (shipper.rejected, "rejected"),
        (sum(counts.redacted.values()), "redacted"),
    ):
        if count:
            parts.append(f"{label}: {count}")
    return ", ".join(parts)


__all__ = ["PROGRAM", "run_shipper", "stopped_code"]
