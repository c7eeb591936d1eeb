"""Receiver of OpenTelemetry logs, as the settings of the shipper describe it."""

import asyncio
import contextlib
import functools
import time
from typing import Final

from tickertape.producers.sdk.publisher import Publisher
from tickertape.producers.shipper.otlp.records import RecordReader
from tickertape.producers.shipper.otlp.server import OtlpServer
from tickertape.producers.shipper.otlp.store import STORE_TIMEOUT, RecordStore, StoreUnavailable
from tickertape.producers.shipper.parsing.parser import ParserCounts
from tickertape.producers.shipper.settings import ShipSettings
from tickertape.producers.shipper.shipper import Shipper
from tickertape.producers.shipper.sinks.sink import OutgoingEvent
from tickertape.producers.shipper.throttle import Throttle

from tickertape.nats.streams import server_version
from tickertape.process.console import print_notice
from tickertape.process.tasks import Tasks

PROGRAM: Final = "ship"
"""Name of the program in notices."""

DEFAULT_SOURCE: Final = "otlp"
"""Source of records whose resource has no service."""

_REPORT_INTERVAL: Final = 1.0  # seconds between two checks whether a report of suppressed events is due


async def open_receiver(
    settings: ShipSettings,
    publisher: Publisher,
    shipper: Shipper,
    counts: ParserCounts,
    limit: int,
    tasks: Tasks,
    stack: contextlib.AsyncExitStack,
) -> None:
    """Open the receiver of OpenTelemetry logs, if the settings have an address.

    Args:
        settings: options of the program.
        publisher: has the connection to NATS.
        shipper: counts the events that are stored.
        counts: counters of all inputs.
        limit: maximum size of an event in bytes that the server accepts.
        tasks: group for the tasks of the receiver.
        stack: closes it.

    Raises:
        ListenError: the address is not available.
    """
    address = settings.otlp_address()
    if address is None:
        return
    warn = functools.partial(print_notice, PROGRAM)
    client = await publisher.connected()
    # Its deadline is that of the sender, who sends the same events again.
    events = Publisher(
        client=client, prefix=settings.subject_prefix, deadline=STORE_TIMEOUT, on_stall=lambda _: None
    )
    await stack.enter_async_context(events)
    source = settings.source or DEFAULT_SOURCE
    throttle = Throttle(settings.throttle_settings(), f"otlp://{address}", source)
    reader = RecordReader(settings.parse_settings(), source, counts, throttle, limit)
    atomic = server_version(client) >= (2, 12)
    store = RecordStore(client, events, settings.names(), warn, atomic=atomic)
    server = OtlpServer(reader, store, warn)
    server.on_stored = functools.partial(_count, shipper)
    stack.callback(server.close)
    for bound in await server.open(address):
        warn(f"receiving OpenTelemetry logs on http://{bound}/v1/logs")
    if address.is_open:
        warn(f"{address}: every machine that reaches it can write log events; use a loopback address")
    tasks.start(_report_suppressed(throttle, store))


def _count(shipper: Shipper, events: list[OutgoingEvent], rejected: int) -> None:
    """Count the events of a request, like those of a batch."""
    shipper.batches += 1
    shipper.rejected += rejected
    shipper.bytes += sum(len(event.payload) for event in events)
    shipper.shipped.update([event.subject.split(".", 2)[1] for event in events])


async def _report_suppressed(throttle: Throttle, store: RecordStore) -> None:
    """Store reports of suppressed events when they are due."""
    while True:
        await asyncio.sleep(_REPORT_INTERVAL)
        unreported = throttle.unreported.copy()
        if reports := throttle.report_suppressed(time.time(), finish=False):
            try:
                await store.store(reports)
            except StoreUnavailable:
                throttle.unreported.update(unreported)
