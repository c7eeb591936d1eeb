"""The composition root: builds the relay, runs it, drains it. Reads from top to bottom as it happens.

How it drains is in ``relay/drain.py``, what SIGHUP does in ``relay/reload.py``.
"""

import asyncio
import gc
import logging
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, Final

from tickertape.relay.auth.token_service import TokenService
from tickertape.relay.drain import StopSignals, drain
from tickertape.relay.endpoints.routes import main_app, relay_ops_app
from tickertape.relay.metrics.catalog import package_version, process_numbers
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.relay import Components, assemble
from tickertape.relay.reload import Reload
from tickertape.relay.settings import RESERVED_DESCRIPTORS, ServeSettings
from tickertape.relay.transport.acceptor import Acceptor
from tickertape.relay.transport.http_protocol import GuardedHttp
from tickertape.relay.transport.http_server import HttpServer, listen, same_port_error
from tickertape.relay.transport.listener import Listener
from tickertape.relay.transport.tls import POLL_INTERVAL, Certificate
from tickertape.relay.transport.websocket import websocket_protocol
from tickertape.relay.worker_context import Server, WorkerContext

from tickertape.errors import OperatorError
from tickertape.logging_setup import HandlerFactory
from tickertape.nats import connection
from tickertape.nats.embedded_server import EmbeddedNats
from tickertape.process import console
from tickertape.process.limits import raise_descriptor_limit
from tickertape.process.listeners import ListenError
from tickertape.process.tasks import cancel_and_wait, race
from tickertape.urls import redact_url

log = logging.getLogger("tickertape")

DESCRIPTORS: Final = 65_536
GC_THRESHOLDS: Final = (10_000, 50, 100)
"""The log is many long-lived objects without cycles; full passes over it cost tens of milliseconds."""


async def serve(
    settings: ServeSettings,
    announce: Callable[[str], None] = console.print_line,
    shipping: HandlerFactory | None = None,
    worker: WorkerContext | None = None,
) -> int:
    """Run a relay until a signal ends it.

    Args:
        settings: what the operator set.
        announce: gets the lines for the operator.
        shipping: makes what also publishes the relay's own log.
        worker: among other relays on the same port; None stands alone.

    Returns:
        the exit code: 0 after a signal, 1 when it cannot run.
    """
    began = time.monotonic()
    refuse = worker.report_error if worker else partial(console.print_notice, "serve")
    stopping, reload = StopSignals(), Reload(settings)
    log.info("version %s starts", package_version(), extra=_told(settings))
    descriptors = _room(settings.max_connections)
    nats: EmbeddedNats | None = None
    certificate: Certificate | None = None
    try:
        authority = TokenService(settings) if settings.auth == "jwt" else None
        if settings.tls_cert is not None:
            certificate = Certificate(settings.tls_cert, settings.tls_key)
        main_socket = listen(settings.host, settings.port, "--port", shared=worker is not None)
        if worker is None:
            ops_socket = _listen_for_ops(settings, main_socket.port)
        if settings.nats_url is None:
            nats = EmbeddedNats(settings.data_dir, settings.nats_port)
            await nats.start()
    except OperatorError as error:
        refuse(str(error))
        return 1
    url = settings.nats_url or (nats.url if nats else connection.DEFAULT_URL)

    shipped = None if shipping is None else shipping(url)
    if shipped is not None:
        log.addHandler(shipped)
    components = assemble(settings, url, settings.origins(), descriptors, authority, worker)
    connections = components.connections
    acceptor = Acceptor(
        connections.admission, connections.clock, GuardedHttp, certificate.context if certificate else None
    )
    pages = main_app(connections, components.history)
    main = HttpServer(pages, main_socket, websocket_protocol(connections), acceptor.protocol)
    of_ops = relay_ops_app(
        connections, components.ready, lambda: components.ingest.lag, components.metrics_snapshot
    )
    ops: Server = (
        worker.ops(of_ops, partial(_whole_reading, components)) if worker else HttpServer(of_ops, ops_socket)
    )
    loaded = asyncio.Event()
    code = 0
    both: tuple[Server, Server] = (main, ops)
    servers = [asyncio.create_task(server.run_until_stopped(), name="server") for server in both]
    background = [asyncio.create_task(components.run(loaded), name="parts")]
    background.append(asyncio.create_task(reload.run(components, certificate), name="reload"))
    if certificate is not None:
        background.append(asyncio.create_task(_refresh(certificate), name="certificate"))
    if nats is not None and nats.supervisor_task is not None:
        background.append(nats.supervisor_task)
    watched = [*servers, *background]
    try:
        address = f"{'https' if certificate else 'http'}://{main.address}"
        announce(f"relay: {address}  metrics: http://{ops.address}/metrics  NATS: {redact_url(url)}")
        await race(loaded.wait(), *watched, stopping.wait())
        if loaded.is_set() and not _ended(watched):
            connections.start_accepting()
            _settle_memory()
            announce("ready")
            seconds = time.monotonic() - began
            log.info("ready after %.1f s", seconds, extra={"seconds": round(seconds, 3), "address": address})
            await race(*watched, stopping.wait())
        for task in _ended(watched):
            await task  # raises what ended it
        await drain(connections, main, settings.drain_delay, settings.drain, stopping)
    except OperatorError as error:
        refuse(str(error))
        code = 1
        await drain(
            connections, main, 0.0, settings.drain, stopping
        )  # clients are told, and find another relay
    finally:
        await cancel_and_wait(*background)
        for server in both:
            server.should_exit = True
        await asyncio.gather(*servers, return_exceptions=True)
        if shipped is not None:
            log.removeHandler(shipped)
            await asyncio.to_thread(shipped.close)  # waits until what was logged is in the stream
        if nats is not None:
            await nats.stop()
    log.info("ended", extra={"code": code, "seconds": round(time.monotonic() - began, 3)})
    return code


def _whole_reading(components: Components) -> MetricsSnapshot:
    """Read the numbers of a relay and of its process, for the supervisor."""
    return replace(components.metrics_snapshot(), process=process_numbers())


def _ended(tasks: Iterable[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    return [task for task in tasks if task.done()]


def _settle_memory() -> None:
    """Spare the garbage collector what lives now, since it lives long."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _listen_for_ops(settings: ServeSettings, main_port: int) -> Listener:
    try:
        return listen(settings.ops_host, settings.ops_port, "--ops-port")
    except ListenError as error:
        raise same_port_error(error, settings.ops_port, main_port) from None


def _room(connections: int) -> int:
    """Let the process have as many descriptors as it may; each client is one.

    Args:
        connections: that are wanted; 0 means as many as fit.

    Returns:
        for how many connections there are descriptors.
    """
    descriptors = raise_descriptor_limit(max(DESCRIPTORS, connections + RESERVED_DESCRIPTORS))
    fit = max(1, descriptors - RESERVED_DESCRIPTORS)
    if connections > fit:
        log.warning(
            "%d descriptors: up to %d clients, not %d; raise the limit (ulimit -n)",
            descriptors,
            fit,
            connections,
        )
    else:
        log.info("%d descriptors: up to %d clients", descriptors, connections or fit)
    return fit


def _told(settings: ServeSettings) -> dict[str, Any]:
    """What the first line says of the settings; nothing that is secret."""
    return {
        "version": package_version(),
        "pid": os.getpid(),
        "host": settings.host,
        "auth": settings.auth,
        "insecure": settings.insecure,
        "tls": settings.tls_cert is not None,
        "nats": redact_url(settings.nats_url) if settings.nats_url else "its own",
        "subjects": settings.subjects,
        "client_rate": settings.client_rate,
        "log_level": settings.log_level,
        "drain": settings.drain,
    }


async def _refresh(certificate: Certificate) -> None:
    """Look every few seconds whether the certificate was renewed."""
    while True:
        await asyncio.sleep(POLL_INTERVAL)
        certificate.refresh()
