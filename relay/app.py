"""The composition root: builds the relay, runs it, drains it. Reads from top to bottom as it happens."""

import asyncio
import gc
import itertools
import logging
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import Final

from contracts import connect
from contracts.codes import CloseCode
from contracts.streams import Names, StreamsError
from relay.authority import Authority
from relay.config import RESERVED_DESCRIPTORS, ServeSettings
from relay.connection import Gate
from relay.core.admission import Admission
from relay.core.hub import TICK, Hub, HubSettings
from relay.door import Door
from relay.embedded import EmbeddedError, EmbeddedNats
from relay.entrance import Entrance
from relay.forwarded import Networks
from relay.history import History
from relay.intake import Intake
from relay.keys import KeysError
from relay.pages import main_pages, ops_pages
from relay.readers import Readers
from relay.revocations import RevocationsError
from relay.server import GuardedHttp, HttpServer, ListenError, listen
from relay.tls import LOOK_EVERY, Certificate, CertificateError

log = logging.getLogger("tickertape")

DESCRIPTORS: Final = 65_536
GC_THRESHOLDS: Final = (10_000, 50, 100)
"""The log is many long-lived objects without cycles; full passes over it cost tens of milliseconds."""

DRAIN_WAVES: Final = 10
"""Clients are sent away in so many groups over the first half of the time; the rest is for their answers."""

RETRY_SPREAD_MS: Final = 5_000
"""Clients come back spread over this long after a shutdown, not all in one second."""


def clock() -> Callable[[], float]:
    """UNIX seconds that never go back: the wall clock at the start, carried on by the monotonic one."""
    offset = time.time() - time.monotonic()
    monotonic = time.monotonic
    return lambda: monotonic() + offset


REST_FROM: Final = 0.002
"""Seconds until the next flush from which it pays to leave new events in the socket until then."""


class Flusher:
    """Turns the hub's wishes into callbacks of the event loop.

    While the pacing holds events back anyway, they are left in NATS' socket: reading thirty at once costs a
    quarter of thirty times reading one.

    Args:
        now: the clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.hub: Hub
        self.intake: Intake
        self._now = now
        self._loop = asyncio.get_running_loop()
        self._flushing = False
        self._wanted = False
        self._serving = False
        self._held: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Flush as soon as the pacing lets it."""
        if self._flushing:
            self._wanted = True
            return
        wait = self.hub.fanout.pacer.earliest() - self._now()
        if wait <= 0:
            self._loop.call_soon(self._flush)
        else:
            self._loop.call_later(wait, self._flush)
            if not self._serving:
                self._serving = True
                self._loop.call_soon(self._between)

    def _between(self) -> None:
        """Use the time until the next flush for those who are behind, a few in each turn of the loop."""
        self._serving = not self._flushing and self.hub.fanout.serve_behind(self._now())
        if self._serving:
            self._loop.call_soon(self._between)

    def _flush(self) -> None:
        started = self._now()
        if self._held is not None:
            self._held.cancel()
            self._held = None
        self._flushing = True
        cpu = time.thread_time()
        self.hub.fanout.flush(started)
        # uvloop sends at the end of this turn of the loop: only after that is it known how long it took.
        self._loop.call_soon(self._flushed, started, cpu)

    def _flushed(self, started: float, cpu: float) -> None:
        now = self._now()
        pacer = self.hub.fanout.pacer
        # The processor's time, not the clock's: on a busy machine flushes are no dearer, only later.
        pacer.flushed(started, time.thread_time() - cpu)
        self._flushing = False
        if (wait := pacer.earliest() - now) > REST_FROM:
            self.intake.rest()
            self._loop.call_later(wait, self.intake.go_on)
        if self._wanted:
            self._wanted = False
            self.wake()
        elif (until := self.hub.fanout.held_until()) is not None:
            self._held = self._loop.call_later(max(0.0, until - now), self._flush)


def say(line: str) -> None:
    """Print a line for the operator, at once: whoever starts relays reads it through a pipe."""
    print(line, flush=True)


async def serve(settings: ServeSettings, announce: Callable[[str], None] = say) -> int:
    """Run a relay until a signal ends it.

    Args:
        settings: what the operator set.
        announce: gets the lines for the operator.

    Returns:
        the exit code: 0 after a signal, 1 when it cannot run.
    """
    names = Names(settings.subject_prefix)
    now = clock()
    descriptors = raise_descriptor_limit(settings.max_connections)
    flusher = Flusher(now)
    patterns = tuple(names.subject(pattern) for pattern in settings.patterns())
    readers = Readers(names, patterns, now)
    try:
        authority = Authority(settings) if settings.auth == "jwt" else None
    except (KeysError, RevocationsError) as error:
        announce_error(str(error))
        return 1
    verify = None if authority is None else authority.verify
    hub = Hub(
        HubSettings(
            relay=socket.gethostname(),
            rate=settings.client_rate,
            complete_rate=settings.complete_rate,
            log_events=settings.log_size,
            log_bytes=settings.log_bytes,
            max_catch_up=settings.max_catch_up,
        ),
        flusher.wake,
        readers.fetch,
        readers.ask,
        verify,
    )
    flusher.hub = readers.hub = hub
    trusted, unlimited = Networks(settings.trusted_proxies), Networks(settings.unlimited_addresses)
    admission = Admission(
        settings.limits(descriptors), lambda address: address in unlimited or address in trusted
    )
    gate = Gate(hub, now, Entrance(verify, settings.origins(), trusted), admission, settings.message_rate)
    gate.open = False
    nats: EmbeddedNats | None = None
    certificate: Certificate | None = None
    try:
        if settings.tls_cert is not None:
            certificate = Certificate(settings.tls_cert, settings.tls_key)
        main_socket = listen(settings.host, settings.port, "--port")
        ops_socket = listen(settings.ops_host, settings.ops_port, "--ops-port")
        if settings.nats_url is None:
            nats = EmbeddedNats(settings.data_dir, settings.nats_port)
            await nats.start()
    except (ListenError, EmbeddedError, CertificateError) as error:
        announce_error(str(error))
        return 1
    url = settings.nats_url or (nats.url if nats else connect.DEFAULT_URL)

    intake = flusher.intake = Intake(hub, now, url, names, patterns, readers, settings.access())
    stopping = stop_signals()
    door = Door(admission, now, GuardedHttp, certificate.context if certificate else None)
    pages = main_pages(gate, History(hub, readers))
    main = HttpServer(pages, main_socket, gate.protocol, door.protocol)
    ops = HttpServer(
        ops_pages(
            gate,
            lambda: intake.loaded and hub.upstream_connected and gate.open,
            lambda: intake.lag,
            lambda: {} if authority is None else authority.failures,
        ),
        ops_socket,
    )
    ready = asyncio.Event()
    code = 0
    servers = [asyncio.create_task(server.run_until_stopped()) for server in (main, ops)]
    feeding = asyncio.create_task(intake.run(ready), name="intake")
    ticking = asyncio.create_task(_tick(hub, gate, now, certificate), name="tick")
    background = [ticking, feeding]
    if authority is not None:
        background.append(asyncio.create_task(_watch(authority, hub), name="tokens"))
    try:
        address = f"{'https' if certificate else 'http'}://{main.address}"
        announce(f"relay: {address}  metrics: http://{ops.address}/metrics  NATS: {connect.shown(url)}")
        await _first(ready.wait(), *background, stopping.wait())
        if ready.is_set():
            gate.open = True
            # What lives now lives long: the garbage collector need not look at it again.
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            announce("ready")
            await _first(*background, stopping.wait())
        for task in background:
            if task.done():
                await task
        await _drain(gate, main, settings.drain, stopping)
    except StreamsError as error:
        announce_error(str(error))
        code = 1
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for server in (main, ops):
            server.should_exit = True
        await asyncio.gather(*servers)
        if nats is not None:
            await nats.stop()
    return code


def raise_descriptor_limit(connections: int = 0) -> int:
    """Let the process have as many descriptors as it may; each client is one.

    Args:
        connections: that are wanted; 0 means as many as fit.

    Returns:
        for how many connections there are descriptors.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(DESCRIPTORS, connections + RESERVED_DESCRIPTORS)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    fit = max(1, soft - RESERVED_DESCRIPTORS)
    if connections > fit:
        log.warning(
            "%d descriptors: up to %d clients, not %d; raise the limit (ulimit -n)", soft, fit, connections
        )
    else:
        log.info("%d descriptors: up to %d clients", soft, connections or fit)
    return fit


def stop_signals() -> "StopSignals":
    """Listen for SIGINT and SIGTERM."""
    stopping = StopSignals()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    return stopping


class StopSignals:
    """Counts the signals that ask to stop: the first drains, the second ends at once."""

    def __init__(self) -> None:
        self._first = asyncio.Event()
        self._second = asyncio.Event()

    def set(self) -> None:
        """A signal came."""
        (self._second if self._first.is_set() else self._first).set()

    async def wait(self) -> None:
        """Wait for the first."""
        await self._first.wait()

    @property
    def twice(self) -> bool:
        """True once the second came."""
        return self._second.is_set()

    async def wait_again(self) -> None:
        """Wait for the second."""
        await self._second.wait()


async def _drain(gate: Gate, main: HttpServer, seconds: float, stopping: StopSignals) -> None:
    """Let clients go: not ready, no new ones, ``bye`` to each in turn over the time given."""
    gate.open = False
    main.stop_accepting()
    sessions = list(gate.hub.sessions.values())
    log.info("shutting down: %d clients have %g s to leave", len(sessions), seconds)
    for wave in range(DRAIN_WAVES):
        for index in range(wave, len(sessions), DRAIN_WAVES):
            spread = RETRY_SPREAD_MS * index // len(sessions)
            gate.hub.bye(sessions[index], CloseCode.GOING_AWAY, "the relay shuts down", 500 + spread)
        if len(gate) and not stopping.twice:
            await _first(asyncio.sleep(seconds / DRAIN_WAVES / 2), stopping.wait_again())
    deadline = asyncio.get_running_loop().time() + seconds / 2
    while len(gate) and asyncio.get_running_loop().time() < deadline and not stopping.twice:
        await _first(asyncio.sleep(0.02), stopping.wait_again())
    for connection in gate.all():
        connection.abort()


async def _watch(authority: Authority, hub: Hub) -> None:
    """Keep keys and revocations up to date, and end the sessions of tokens that were revoked."""

    def changed() -> None:
        if ended := hub.end_revoked(authority.revoked):
            log.info("%d sessions ended: their tokens were revoked", ended)

    await authority.run(changed)


async def _tick(hub: Hub, gate: Gate, now: Callable[[], float], certificate: Certificate | None) -> None:
    for turn in itertools.count(1):
        await asyncio.sleep(TICK)
        hub.tick(now())
        gate.ping_some()
        if turn % LOOK_EVERY == 0:
            gate.admission.tidy(now())
            if certificate is not None:
                certificate.refresh()


async def _first(*waits: object) -> None:
    """Wait until one of these is done, and cancel those that were begun for this wait alone."""
    tasks = [wait if isinstance(wait, asyncio.Task) else asyncio.ensure_future(wait) for wait in waits]  # type: ignore[call-overload]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task, wait in zip(tasks, waits, strict=True):
            if task is not wait and not task.done():
                task.cancel()


def announce_error(message: str) -> None:
    """Say in one line on standard error why the relay cannot run."""
    print(f"tickertape serve: {message}", file=sys.stderr)
