"""The composition root: builds the relay, runs it, drains it. Reads from top to bottom as it happens."""

import asyncio
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

from contracts import connect
from contracts.streams import StreamsError
from relay.assembly import assemble
from relay.auth.authority import Authority
from relay.auth.keys import KeysError
from relay.auth.revocations import RevocationsError
from relay.config import RESERVED_DESCRIPTORS, ServeSettings
from relay.connection import websocket_protocol
from relay.door import Door
from relay.embedded import EmbeddedError, EmbeddedNats
from relay.gate import Gate
from relay.pages import main_pages, ops_pages
from relay.server import GuardedHttp, HttpServer, ListenError, listen
from relay.tls import LOOK_EVERY, Certificate, CertificateError
from relay.workers.place import Place, Server

log = logging.getLogger("tickertape")

DESCRIPTORS: Final = 65_536
GC_THRESHOLDS: Final = (10_000, 50, 100)
"""The log is many long-lived objects without cycles; full passes over it cost tens of milliseconds."""

DRAIN_WAVES: Final = 10
"""Clients are sent away in so many groups over the first half of the time; the rest is for their answers."""


def say(line: str) -> None:
    """Print a line for the operator, at once: whoever starts relays reads it through a pipe."""
    print(line, flush=True)


async def serve(
    settings: ServeSettings, announce: Callable[[str], None] = say, place: Place | None = None
) -> int:
    """Run a relay until a signal ends it.

    Args:
        settings: what the operator set.
        announce: gets the lines for the operator.
        place: among other relays on the same port; None stands alone.

    Returns:
        the exit code: 0 after a signal, 1 when it cannot run.
    """
    refuse = place.refused if place else announce_error
    descriptors = raise_descriptor_limit(settings.max_connections)
    nats: EmbeddedNats | None = None
    certificate: Certificate | None = None
    try:
        authority = Authority(settings) if settings.auth == "jwt" else None
        if settings.tls_cert is not None:
            certificate = Certificate(settings.tls_cert, settings.tls_key)
        main_socket = listen(settings.host, settings.port, "--port", shared=place is not None)
        if place is None:
            ops_socket = listen(settings.ops_host, settings.ops_port, "--ops-port")
        if settings.nats_url is None:
            nats = EmbeddedNats(settings.data_dir, settings.nats_port)
            await nats.start()
    except (KeysError, RevocationsError, ListenError, EmbeddedError, CertificateError) as error:
        refuse(str(error))
        return 1
    url = settings.nats_url or (nats.url if nats else connect.DEFAULT_URL)

    parts = assemble(settings, url, settings.origins(), descriptors, authority, place)
    gate = parts.gate
    stopping = stop_signals()
    door = Door(gate.admission, gate.clock, GuardedHttp, certificate.context if certificate else None)
    pages = main_pages(gate, parts.history)
    main = HttpServer(pages, main_socket, websocket_protocol(gate), door.protocol)
    of_ops = ops_pages(gate, parts.ready, lambda: parts.intake.lag, parts.failures)
    ops: Server = place.ops(of_ops) if place else HttpServer(of_ops, ops_socket)
    loaded = asyncio.Event()
    code = 0
    both: tuple[Server, Server] = (main, ops)
    servers = [asyncio.create_task(server.run_until_stopped()) for server in both]
    background = [asyncio.create_task(parts.run(loaded), name="parts")]
    if certificate is not None:
        background.append(asyncio.create_task(_refresh(certificate), name="certificate"))
    try:
        address = f"{'https' if certificate else 'http'}://{main.address}"
        announce(f"relay: {address}  metrics: http://{ops.address}/metrics  NATS: {connect.shown(url)}")
        await _first(loaded.wait(), *background, stopping.wait())
        if loaded.is_set():
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
        refuse(str(error))
        code = 1
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        for server in both:
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
        gate.farewell(sessions, wave, DRAIN_WAVES)
        if len(gate) and not stopping.twice:
            await _first(asyncio.sleep(seconds / DRAIN_WAVES / 2), stopping.wait_again())
    deadline = asyncio.get_running_loop().time() + seconds / 2
    while len(gate) and asyncio.get_running_loop().time() < deadline and not stopping.twice:
        await _first(asyncio.sleep(0.02), stopping.wait_again())
    for connection in gate.all():
        connection.abort()


async def _refresh(certificate: Certificate) -> None:
    """Look every few seconds whether the certificate was renewed."""
    while True:
        await asyncio.sleep(LOOK_EVERY)
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
