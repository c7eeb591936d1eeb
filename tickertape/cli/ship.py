"""``tickertape ship``: connects to NATS, chooses the sink, and runs the shipper."""

import asyncio
import functools
import gc
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.contracts.events import MAX_EVENT_BYTES
from tickertape.errors import OperatorError, TickertapeError, exit_code
from tickertape.nats import connection
from tickertape.nats.provisioning import connect_or_report, ensure_streams
from tickertape.nats.streams import server_version
from tickertape.process.console import print_notice
from tickertape.process.signals import stop_on_signals
from tickertape.process.standard_streams import check_input
from tickertape.process.tasks import run_until_stopped
from tickertape.process.terminal import Terminal
from tickertape.producers.sdk.publisher import FOREVER, Publisher
from tickertape.producers.shipper import status as shipper_status
from tickertape.producers.shipper.dry_run.run import PrintingSink, report_files
from tickertape.producers.shipper.runner import PROGRAM, run_shipper, stopped_code
from tickertape.producers.shipper.settings import STANDARD_INPUT, ShipSettings
from tickertape.producers.shipper.sinks.atomic import AtomicSink
from tickertape.producers.shipper.sinks.dedupe import DedupeSink
from tickertape.producers.shipper.sinks.local_state import LocalState, state_key
from tickertape.producers.shipper.sinks.sink import Sink
from tickertape.urls import redact_url

HEADER_BYTES: Final = 1024
"""Bytes reserved for the headers of a message in addition to its event."""


GC_THRESHOLDS: Final = (20_000, 10, 10)
"""Thresholds of the garbage collector: ten thousand files consist of millions of objects, over which full
collections took half the time of a start."""


async def run(settings: ShipSettings) -> int:
    """Run until the input ends, or until SIGTERM or SIGINT; return the exit code."""
    if settings.status:
        return await _show_status(settings)
    gc.set_threshold(*GC_THRESHOLDS)
    state: LocalState | None = None
    try:
        if settings.paths == [STANDARD_INPUT]:
            check_input()
        if settings.dry_run:
            with stop_on_signals() as stop:
                if not settings.json_:
                    return await report_files(settings, stop)
                return await run_shipper(settings, PrintingSink(), None, stop, MAX_EVENT_BYTES)
        state = LocalState(settings.state_dir, state_key(settings.host, settings.inputs))
        with stop_on_signals() as stop:
            return await _ship(settings, state, stop)
    except (TickertapeError, OSError) as error:
        print_notice(PROGRAM, str(error))
        return exit_code(error)
    finally:
        if state is not None:
            state.close()


async def _ship(settings: ShipSettings, state: LocalState, stop: asyncio.Event) -> int:
    url = redact_url(settings.nats_url)
    warn = functools.partial(print_notice, PROGRAM)
    publisher = Publisher(
        settings.nats_url,
        access=settings.access(),
        prefix=settings.subject_prefix,
        name="tickertape-ship",
        deadline=FOREVER,
        on_down=lambda failure: print_notice(
            PROGRAM, f"{failure.retry_message}; lines are shipped when it is reachable again"
        ),
        on_up=lambda: print_notice(PROGRAM, f"connected to NATS at {url}"),
        on_stall=warn,
    )
    async with publisher:
        try:
            client = await run_until_stopped(stop.wait(), _prepare(settings, publisher))
            if client is None:
                return stopped_code(settings)
            names = settings.names()
            sink: Sink
            if server_version(client) >= (2, 12):
                sink = AtomicSink(client, names, settings.host, warn)
            else:
                sink = DedupeSink(publisher, state, settings.host, warn)
                print_notice(
                    PROGRAM,
                    "the server lacks atomic batches: shipping is at least once beyond the duplicate window",
                )
            limit = min(client.max_payload, MAX_EVENT_BYTES + HEADER_BYTES) - HEADER_BYTES
            return await run_shipper(settings, sink, publisher, stop, limit, state)
        finally:
            # The deadline is infinite, so leaving the context could wait for a health event without end.
            await publisher.close(0.0)


async def _prepare(settings: ShipSettings, publisher: Publisher) -> Client:
    client = await publisher.connected()
    for note in (await ensure_streams(client, settings.names(), PROGRAM)).notes:
        print_notice(PROGRAM, note)
    return client


async def _show_status(settings: ShipSettings) -> int:
    client = await connect_or_report(PROGRAM, settings)
    if client is None:
        return 1
    try:
        if await shipper_status.print_status(client, settings.names(), settings.host, Terminal()):
            return 0
        print_notice(PROGRAM, f"no status of a shipper on host {settings.host!r} found; check --host")
    except OperatorError as error:
        print_notice(PROGRAM, str(error))
        return exit_code(error)
    except (NatsError, TimeoutError) as error:
        print_notice(
            PROGRAM,
            f"the shipper status cannot be read: {str(error) or 'no reply'}; check that JetStream is enabled",
        )
    finally:
        await connection.close(client)
    return 1


__all__ = ["ShipSettings", "run"]
