"""Freshness of subjects on a real NATS server, which restarts, stops answering, and denies them."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes.context import ProbeContext
from tickertape.producers.monitor.probes.freshness import FreshnessProbe
from tickertape.producers.monitor.probes.result import CannotProbe
from tickertape.producers.monitor.subject_listener import SubjectListener

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.client import SafeClient
from tickertape.process.tasks import Tasks

WITHIN = 0.4
"""Accepted age of a message, in seconds."""

POLL_INTERVAL = 0.02
"""Seconds between two probes."""


class Desk:
    """Listener of a monitor, and the probe of one subject."""

    def __init__(self, client: SafeClient, tasks: Tasks) -> None:
        self.client = client
        self.reports: list[str] = []
        self._tasks = tasks
        self._context = ProbeContext()
        self._listener = SubjectListener(self._context.freshness, self.reports.append)

    def listen(self, **ages: float) -> None:
        """Listen on ``md.`` and each of these names, as after a reload of the file."""
        patterns = {f"md.{name}": age for name, age in ages.items()}
        self._listener.update(self.client, Names(), patterns, self._tasks.start)

    async def publish(self, name: str) -> set[Outcome | None]:
        """Publish messages until the subject is fresh; return the outcomes before."""
        before: set[Outcome | None] = set()
        while (found := await self.probe(name)) is not Outcome.OK:
            before.add(found)
            await self.client.publish(f"md.{name}", b"x")
            await self.client.flush()
        return before

    async def probe(self, name: str, within: float = WITHIN) -> Outcome | None:
        """Probe a subject once, as the monitor does; UNKNOWN is that messages may have been missed."""
        self._listener.update_connection(self.client.is_connected)
        probe = FreshnessProbe(kind="freshness", subject=f"md.{name}", within=f"{within}s")
        try:
            result = await probe.probe(0.2, self._context)
        except CannotProbe as error:
            if "may have been missed" in error.message:
                return Outcome.UNKNOWN
            raise
        return None if result is None else result.outcome

    async def until(self, outcome: Outcome | None, name: str) -> set[Outcome | None]:
        """Probe a subject until it has an outcome; return those before."""
        before: set[Outcome | None] = set()
        while (found := await self.probe(name)) is not outcome:
            before.add(found)
            await asyncio.sleep(POLL_INTERVAL)
        return before


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[Desk]:
    """Connect a listener to a server."""
    client = await connection.connect(url, name="monitor")
    try:
        async with Tasks() as tasks, asyncio.timeout(PATIENCE):
            yield Desk(client, tasks)
    finally:
        await connection.close(client)


def run(url: str, scenario: Callable[[Desk], Awaitable[None]]) -> None:
    """Run a scenario with a listener."""

    async def work() -> None:
        async with opened(url) as desk:
            await scenario(desk)

    asyncio.run(work())


def test_a_feed_that_ends_is_found(nats_server: NatsServer) -> None:
    """A subject is unknown until a message arrives, or none has arrived for long enough."""

    async def scenario(desk: Desk) -> None:
        desk.listen(a=WITHIN, b=WITHIN)
        assert await desk.until(Outcome.FAILED, "a") <= {None}
        assert await desk.publish("a") <= {Outcome.FAILED}
        assert await desk.until(Outcome.FAILED, "a") <= {Outcome.OK, None}
        assert desk.reports == []

    run(nats_server.url, scenario)


def test_a_busy_subject_costs_one_message_in_each_interval(nats_server: NatsServer) -> None:
    """NATS sends no message that would change nothing."""

    async def scenario(desk: Desk) -> None:
        desk.listen(busy=600.0, other=WITHIN)
        await desk.client.flush()
        for _ in range(1000):
            await desk.client.publish("md.busy", b"x")
        await desk.client.flush()
        assert desk.client.stats["in_msgs"] == 1
        assert await desk.probe("busy", 600.0) is Outcome.OK
        # Another subject is listened to again and again.
        while desk.client.stats["in_msgs"] < 4:
            await desk.client.publish("md.other", b"x")
            await asyncio.sleep(POLL_INTERVAL)

    run(nats_server.url, scenario)


def test_a_reload_makes_no_dead_feed_healthy(nats_server: NatsServer) -> None:
    """Other patterns that are added or removed do not restart the clock, nor end a subscription."""

    async def scenario(desk: Desk) -> None:
        desk.listen(a=WITHIN, b=WITHIN)
        await desk.publish("a")
        await desk.until(Outcome.FAILED, "a")
        desk.listen(a=WITHIN, c=WITHIN)
        assert await desk.probe("a") is Outcome.FAILED
        assert await desk.probe("b") is None
        assert await desk.until(Outcome.FAILED, "c") <= {None}
        await desk.publish("a")
        await desk.client.publish("md.b", b"x")
        await desk.client.flush()
        assert await desk.probe("b") is None

    run(nats_server.url, scenario)


def test_an_outage_of_nats_makes_no_dead_feed_healthy(nats_server: NatsServer) -> None:
    """What could not be heard is unknown: a feed is healthy after its next message."""

    async def scenario(desk: Desk) -> None:
        desk.listen(a=WITHIN)
        await desk.publish("a")
        await desk.until(Outcome.FAILED, "a")
        reconnects = desk.client.stats["reconnects"]
        await asyncio.to_thread(nats_server.kill)
        await asyncio.to_thread(nats_server.start)
        outcomes = set()
        while desk.client.stats["reconnects"] == reconnects or not desk.client.is_connected:
            await asyncio.sleep(POLL_INTERVAL)
        outcomes.add(await desk.probe("a"))
        outcomes |= await desk.until(Outcome.FAILED, "a")
        assert outcomes == {Outcome.UNKNOWN}
        await desk.publish("a")

    run(nats_server.url, scenario)


def test_a_connection_that_stalls_makes_no_feed_dead(nats_server: NatsServer) -> None:
    """Before a feed is reported, NATS must answer: its messages may be under way."""

    async def scenario(desk: Desk) -> None:
        desk.listen(a=WITHIN)
        await desk.publish("a")
        await desk.client.flush()
        nats_server.pause()
        try:
            began = time.monotonic()
            while time.monotonic() - began < 4 * WITHIN:
                assert await desk.probe("a") is not Outcome.FAILED
                await asyncio.sleep(POLL_INTERVAL)
        finally:
            nats_server.resume()
        assert await desk.until(Outcome.FAILED, "a") <= {None, Outcome.UNKNOWN}

    run(nats_server.url, scenario)


CONFIG = """
authorization {
  users = [{user: m, password: p, permissions: {subscribe: {deny: "md.denied"}}}]
}
"""


def test_a_denied_subject_is_neither_fresh_nor_dead(tmp_path: Path) -> None:
    """The probe raises what NATS reports, so that the gateway becomes unknown."""

    async def scenario(desk: Desk) -> None:
        desk.listen(denied=WITHIN, a=WITHIN)
        assert await desk.until(Outcome.FAILED, "a") <= {None}
        with pytest.raises(CannotProbe, match="may not subscribe"):
            await desk.until(Outcome.OK, "denied")

    with NatsServer(tmp_path / "nats", config=CONFIG) as server:
        run(server.url.replace("nats://", "nats://m:p@"), scenario)
