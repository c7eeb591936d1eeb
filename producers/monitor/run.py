"""The gateway monitor as a program: probes on time, tells every change, and stops cleanly.

Invariants:

1. Probing never waits for NATS: changes are kept, in order per gateway, until they are acknowledged.
2. A change is told once: it keeps its message id through every try.
3. What is kept is bounded: per gateway the newest ``MAX_KEPT`` changes.
"""

import asyncio
import hashlib
import secrets
import socket
import time
from collections import Counter, deque
from pathlib import Path
from typing import Annotated, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import AfterValidator, Field

from contracts import subjects
from contracts.connect import NatsSettings, shown
from contracts.events import EventModel, GatewayStatusChange, Status, SystemHealth
from contracts.streams import Names, StreamsError
from producers.errors import InvalidEvent, PublishError, PublishRejected
from producers.monitor import probes
from producers.monitor.config import Check, ConfigError, Gateway, load
from producers.monitor.latest import Newest, newest_statuses
from producers.monitor.watch import Watch, removed
from producers.program import RETRY_WAIT, ensure_streams, say, stop_on_signals
from producers.publisher import Publisher

PROGRAM: Final = "monitor"
MAX_KEPT: Final = 64
"""Changes of one gateway that wait for NATS; beyond that the oldest is given up, and that is said."""

MAX_PROBES_AT_ONCE: Final = 512
"""Open probes; a bound on sockets that thousands of gateways with a long ``hold`` would need otherwise."""

STOP_GRACE: Final = 2.0
"""Seconds at the end for what is not yet acknowledged."""


def _id(text: str) -> str:
    subjects.escape(text)
    return text


class MonitorSettings(NatsSettings):
    """Watch gateways, and publish each change of their status."""

    config: Path
    """The YAML file with the gateways."""
    id: Annotated[str, AfterValidator(_id)] = Field(default_factory=socket.gethostname)
    """Name of this monitor; gateways that it no longer finds in its file are removed under this name."""
    health_interval: Annotated[float, Field(gt=0)] = 10.0
    """Seconds between two events on system.health.monitor.<id>."""


async def run(settings: MonitorSettings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    try:
        gateways = load(settings.config).resolved()
    except ConfigError as error:
        say(PROGRAM, str(error))
        return 2
    url = shown(settings.nats_url)
    with stop_on_signals() as stop:
        publisher = Publisher(
            settings.nats_url,
            creds=settings.nats_creds,
            prefix=settings.subject_prefix,
            name=f"tickertape-monitor-{settings.id}",
            on_down=lambda reason: say(
                PROGRAM, f"NATS at {url} is away ({reason}); changes are kept until it is back"
            ),
            on_up=lambda: say(PROGRAM, f"connected to NATS at {url}"),
        )
        async with publisher:
            monitor = Monitor(settings, gateways, publisher)
            working = asyncio.create_task(monitor.run(stop), name="monitor")
            stopping = asyncio.create_task(stop.wait(), name="stop")
            try:
                await asyncio.wait({working, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done() and not monitor.started:
                    working.cancel()  # still waiting for NATS
                await asyncio.wait({working})
            finally:
                stopping.cancel()
                working.cancel()
            try:
                if not working.cancelled():
                    working.result()
            except (StreamsError, OSError) as error:
                say(PROGRAM, str(error))
                return 1
            await publisher.close(0.0)
    return 0


class Monitor:
    """The gateways of a file, their probes, and what is still to be told.

    Args:
        settings: of the program.
        gateways: from the file.
        publisher: entered; the caller closes it.
    """

    def __init__(self, settings: MonitorSettings, gateways: list[Gateway], publisher: Publisher) -> None:
        self.started = False
        self._settings = settings
        self._gateways = gateways
        self._publisher = publisher
        self._watches: list[Watch] = []
        self._outbox: dict[str, deque[tuple[str, EventModel]]] = {}
        self._told = asyncio.Event()  # set when the outbox has something
        self._slots = asyncio.Semaphore(MAX_PROBES_AT_ONCE)
        self._probed = 0
        self._latest_lag = 0.0
        self._complained = False

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then hand over what is left.

        Raises:
            StreamsError: JetStream cannot serve.
            OSError: the credentials cannot be read.
        """
        client = await self._publisher.connected()
        names = Names(self._settings.subject_prefix)
        for note in (await ensure_streams(client, names)).notes:
            say(PROGRAM, note)
        self._begin(await _newest(client, names), time.time())
        self.started = True
        say(PROGRAM, f"watching {len(self._watches)} gateways as {self._settings.id!r}")
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._tell()), group.create_task(self._report())]
            tasks += [
                group.create_task(self._probe(watch, index, check))
                for watch in self._watches
                for index, check in enumerate(watch.gateway.checks)
            ]
            await stop.wait()
            for task in tasks:
                task.cancel()
        await self._hand_over()

    def _begin(self, newest: dict[str, Newest], now: float) -> None:
        for gateway in self._gateways:
            watch = Watch(gateway, self._settings.id, newest.get(gateway.subject), now)
            self._watches.append(watch)
            self._keep(watch.first(now))
        configured = {gateway.subject for gateway in self._gateways}
        for subject, known in newest.items():
            own = known.monitor == self._settings.id and known.status is not Status.REMOVED
            if own and subject not in configured:
                say(PROGRAM, f"{known.gateway_id} is no longer in the file: removed")
                self._keep(removed(known, self._settings.id, now))

    # --- probing

    async def _probe(self, watch: Watch, index: int, check: Check) -> None:
        clock = asyncio.get_running_loop().time
        due = clock() + spread(f"{watch.gateway.id} {index}", check.interval)
        while True:
            await asyncio.sleep(max(0.0, due - clock()))
            async with self._slots:
                self._latest_lag = max(self._latest_lag, clock() - due)
                result = await probes.run(check)
            self._probed += 1
            change = watch.after(index, result, time.time())
            if change is not None:
                why = f" ({result.error})" if result.error else ""
                path = f"{change.previous_status} -> {change.current_status}"
                say(PROGRAM, f"{watch.gateway.id}: {path}{why}")
                self._keep(change)
            # A probe that took longer than its interval skips the turns that it missed.
            due += check.interval * max(1, -int((due - clock()) // check.interval))

    # --- telling

    def _keep(self, event: GatewayStatusChange | None) -> None:
        if event is None:
            return
        kept = self._outbox.setdefault(event.subject, deque())
        if len(kept) == MAX_KEPT:
            kept.popleft()
            say(
                PROGRAM, f"{event.gateway_id}: more than {MAX_KEPT} changes wait for NATS; the oldest is lost"
            )
        kept.append((secrets.token_hex(12), event))
        self._told.set()

    async def _tell(self) -> None:
        while True:
            await self._told.wait()
            if not await self._tell_once():
                await asyncio.sleep(RETRY_WAIT)
            if not self._outbox:
                self._told.clear()

    async def _tell_once(self) -> bool:
        """Publish the oldest change of each gateway, all at once; False when one has to be tried again."""
        heads = {subject: kept[0] for subject, kept in self._outbox.items()}
        outcomes = await asyncio.gather(
            *(self._publisher.publish(event, msg_id=msg_id) for msg_id, event in heads.values()),
            return_exceptions=True,
        )
        again = False
        for (subject, head), outcome in zip(heads.items(), outcomes, strict=True):
            if isinstance(outcome, PublishError) and not isinstance(outcome, PublishRejected):
                if not self._complained:
                    say(PROGRAM, f"{outcome}; trying on")
                again = self._complained = True
                continue
            if isinstance(outcome, (PublishRejected, InvalidEvent)):
                say(PROGRAM, f"a change is lost: {outcome}")
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                self._complained = False
            kept = self._outbox[subject]
            if kept and kept[0] is head:
                kept.popleft()
            if not kept:
                del self._outbox[subject]
        return not again

    async def _hand_over(self) -> None:
        try:
            async with asyncio.timeout(STOP_GRACE):
                while self._outbox:
                    if not await self._tell_once():
                        await asyncio.sleep(RETRY_WAIT)
        except TimeoutError:
            left = sum(len(kept) for kept in self._outbox.values())
            say(PROGRAM, f"stopped with {left} changes that NATS has not acknowledged")

    async def _report(self) -> None:
        """Tell that this monitor lives, and how it does."""
        while True:
            late, self._latest_lag = self._latest_lag, 0.0
            event = SystemHealth(
                component="monitor",
                instance=self._settings.id,
                status=Status.HEALTHY,
                checks={
                    "gateways": len(self._watches),
                    "statuses": dict(Counter(str(watch.status) for watch in self._watches)),
                    "probes_total": self._probed,
                    "latest_probe_lag_ms": round(late * 1000, 1),
                },
            )
            try:
                await self._publisher.publish(event)
            except PublishError as error:
                if not self._complained:
                    self._complained = True
                    say(PROGRAM, f"{error}; trying on")
            await asyncio.sleep(self._settings.health_interval)


def spread(name: str, interval: float) -> float:
    """Seconds before the first probe: the same at each start, and even over many names."""
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64 * interval


async def _newest(client: Client, names: Names) -> dict[str, Newest]:
    while True:
        reconnects = client.stats["reconnects"]
        try:
            return await newest_statuses(client, names)
        except (StreamsError, NatsError) as error:
            if client.is_connected and client.stats["reconnects"] == reconnects:
                what = f"the newest statuses cannot be read: {error}"
                raise StreamsError(what, "look at the server's log and this user's permissions") from None
        await asyncio.sleep(RETRY_WAIT)
