"""Scenario ``history``: a relay loads the history of gateways, and computes their availability over 90 days.

HISTORY has the transitions of many gateways over 90 days; EVENTS is empty, as after a quiet day. While the
relay loads, a client measures how late live events arrive. The CPU time of the same start without a history
is subtracted. Then the page with all gateways is requested over HTTP.
"""

import asyncio
import http.client
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

import orjson
from websockets.sync.client import connect

from tests.bench.load.children import BenchError
from tests.bench.load.publisher import Events, PublisherConnection, message
from tests.bench.load.transitions import store, transitions
from tests.bench.measures import targets
from tests.bench.measures.targets import Target
from tickertape.nats import connection
from tickertape.nats.streams import stream_info

DAYS: Final = 90
PAGES: Final = 10
_PATIENCE: Final = 120.0
_PAUSE: Final = 0.01
_LIVE: Final = 100
"""Live events after loading, to compare with."""


@dataclass(frozen=True, slots=True)
class GatewayHistory:
    """Cost of loading and of querying the history of gateways.

    Attributes:
        gateways: number of gateways.
        transitions: number of their transitions.
        seconds: seconds from the readiness of the relay until the history was loaded.
        cpu: CPU seconds of the relay for that.
        rss: resident bytes of the relay afterwards.
        slowest: delay of the slowest live event meanwhile, in ms; ``typical`` is the median.
        after: median delay of a live event afterwards, in ms.
        page: median time of a page with the availability of all gateways over 24 h, 7, 30 and 90 days, in ms.
        page_cpu: CPU milliseconds of the relay for such a page.
    """

    gateways: int
    transitions: int
    seconds: float
    cpu: float
    rss: int
    slowest: float
    typical: float
    after: float
    page: float
    page_cpu: float


def history(gateways: int, count: int, progress: Callable[[str], None]) -> GatewayHistory:
    """Measure loading and querying.

    Args:
        gateways: number of gateways, at most 1 000, which fit on a page.
        count: number of transitions.
        progress: called with each line of progress.
    """
    progress(f"history: {count:,} transitions of {gateways:,} gateways ...")
    with targets.nats_server(jetstream=True) as (_, nats_port):
        targets.make_streams(nats_port)
        with targets.relay(nats_port) as target:
            delays: list[float] = []
            _measure_delays(target, delays, lambda: _get(target, "/gateways?limit=1")[0] == 200)
            empty = target.process.cpu
        events = transitions(gateways, count, DAYS * 86_400.0, time.time())
        store(PublisherConnection(nats_port), events, after=len(delays))
        asyncio.run(_wait_until_copied(nats_port, count))
        with targets.relay(nats_port) as target:
            began = time.monotonic()
            delays = []
            _measure_delays(target, delays, lambda: _get(target, "/gateways?limit=1")[0] == 200)
            seconds, cpu = time.monotonic() - began, target.process.cpu - empty
            after: list[float] = []
            _measure_delays(target, after, lambda: len(after) >= _LIVE)
            pages, page_cpu = _measure_pages(target, gateways)
            found = GatewayHistory(
                gateways, count, seconds, cpu, target.process.rss, max(delays), median(delays), median(after),
                pages, page_cpu,
            )  # fmt: skip
    progress(
        f"history: loaded after {found.seconds:.1f} s with {found.cpu:.2f} s of CPU, live events within"
        f" {found.slowest:.0f} ms meanwhile; availability of all gateways in {found.page:.0f} ms"
    )
    return found


def _get(target: Target, path: str) -> tuple[int, bytes]:
    link = http.client.HTTPConnection("127.0.0.1", target.port, timeout=_PATIENCE)
    try:
        link.request("GET", path)
        response = link.getresponse()
        return response.status, response.read()
    finally:
        link.close()


def _measure_delays(target: Target, delays: list[float], is_done: Callable[[], bool]) -> None:
    """Publish one live event after the other, and record how long each takes, in ms, until done."""
    events, publisher = Events(300), PublisherConnection(target.nats_port)
    deadline = time.monotonic() + _PATIENCE
    with connect(f"ws://127.0.0.1:{target.port}/ws?subjects=log.%3E") as feed:
        while not (delays and is_done()):
            if time.monotonic() > deadline:
                raise BenchError(f"the history was not loaded within {_PATIENCE:.0f} s")
            sent = time.monotonic_ns()
            publisher.send(message(events.make(len(delays), sent)))
            while sent not in _sent_times(orjson.loads(feed.recv(timeout=_PATIENCE))):
                pass
            delays.append((time.monotonic_ns() - sent) / 1e6)
            time.sleep(_PAUSE)


def _sent_times(received: dict[str, Any]) -> list[int]:
    return [item["event"]["metadata"]["sent"] for item in received.get("events", ())]


async def _wait_until_copied(nats_port: int, count: int) -> None:
    """Wait until HISTORY has all transitions, and delete those in EVENTS."""
    client = await connection.connect_once(f"nats://127.0.0.1:{nats_port}", name="bench")
    try:
        async with asyncio.timeout(_PATIENCE):
            while (info := await stream_info(client, "HISTORY")) is None or info["state"]["messages"] < count:
                await asyncio.sleep(0.1)
        await client.jetstream().purge_stream("EVENTS")
    finally:
        await connection.close(client)


def _measure_pages(target: Target, gateways: int) -> tuple[float, float]:
    """Return the median time of a page, and its CPU time, in ms."""
    times, cpu = [], target.process.cpu
    for _ in range(PAGES):
        began = time.monotonic()
        status, body = _get(target, "/gateways")
        times.append((time.monotonic() - began) * 1000)
        if status != 200 or len(orjson.loads(body)["gateways"]) != gateways:
            raise BenchError(f"the page of gateways is incomplete: status {status}")
    return median(times), (target.process.cpu - cpu) / PAGES * 1000
