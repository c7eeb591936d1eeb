"""Composition root of a standalone relay: builds the relay, runs it and drains it.

``relay/drain.py`` describes the drain, and ``relay/reload.py`` the effect of SIGHUP.
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

from tickertape.relay.auth.authority import Authority
from tickertape.relay.drain import END_GRACE, StopSignals, drain
from tickertape.relay.endpoints.liveness import Liveness
from tickertape.relay.endpoints.middleware import HostCheck
from tickertape.relay.endpoints.routes import main_app, relay_ops_app
from tickertape.relay.metrics.catalog import package_version, process_numbers
from tickertape.relay.metrics.snapshot import MetricsSnapshot
from tickertape.relay.relay import Components, assemble
from tickertape.relay.reload import Reload
from tickertape.relay.settings import RESERVED_DESCRIPTORS, ServeSettings
from tickertape.relay.transport.acceptor import Acceptor
from tickertape.relay.transport.http.protocol import GuardedHttp
from tickertape.relay.transport.http.server import HttpServer, listen, ops_server, same_port_error
from tickertape.relay.transport.http_stream.connection import stream_protocol
from tickertape.relay.transport.listener import Listener
from tickertape.relay.transport.tls import POLL_INTERVAL, Certificate
from tickertape.relay.transport.websocket.connection import websocket_protocol
from tickertape.relay.worker_context import Server, WorkerContext

from tickertape.errors import OperatorError
from tickertape.logging_setup import HandlerFactory
from tickertape.nats import connection
from tickertape.nats.embedded_server import EmbeddedNats
from tickertape.net.host_names import HostNames
from tickertape.net.listeners import ListenError
from tickertape.process import console, shutdown
from tickertape.process.limits import raise_descriptor_limit
from tickertape.process.tasks import cancel_and_wait, race, run_until_stopped
from tickertape.text import count
from tickertape.urls import redact_url

log = logging.getLogger("tickertape")

DESCRIPTORS: Final = 65_536
"""Number of file descriptors that the process requests, even if fewer connections are allowed."""

GC_THRESHOLDS: Final = (10_000, 50, 100)
"""Thresholds of the garbage collector: the event log consists of many long-lived objects without cycles, and
a full collection over them takes tens of milliseconds."""


async def serve(
    settings: ServeSettings,
    announce: Callable[[str], None] = console.print_line,
    shipping: HandlerFactory | None = None,
    worker: WorkerContext | None = None,
) -> int:
    """Run a relay until a signal stops it.

    Args:
        settings: settings of the relay.
        announce: prints a line for the operator.
        shipping: makes the log handler that publishes the relay's own log; None to not publish it.
        worker: context of a worker that shares its port with others; None for a single process.

    Returns:
        The exit code: 0 after a signal, 1 if the relay cannot run, 77 if NATS denies it a permission.
    """
    started_at = time.monotonic()
    report_error = worker.report_error if worker else partial(console.print_notice, "serve")
    # Before anything else: until then, a signal ends the process without stopping what it has started.
    stopping, reload = StopSignals(settings.drain_delay + settings.drain), Reload(settings)
    liveness = Liveness()
    log.info("starting version %s", package_version(), extra=_startup_fields(settings))
    capacity = _raise_capacity(settings.max_connections)
    nats: EmbeddedNats | None = None
    certificate: Certificate | None = None
    try:
        # Files and ports come before NATS, so that an error in them ends the program before anything has
        # started.
        authority = Authority(settings) if settings.auth != "none" else None
        if settings.tls_cert is not None:
            certificate = Certificate(
                settings.tls_cert,
                settings.tls_key,
                settings.tls_client_ca,
                required=settings.auth == "certificate",
            )
        main_socket = listen(settings.host, settings.port, "--port", shared=worker is not None)
        if worker is None:
            ops_socket = _listen_ops(settings, main_socket.port)
        if settings.nats_url is None:
            nats = EmbeddedNats(settings.data_dir, settings.nats_port)
            await run_until_stopped(stopping.wait(), nats.start())
            settings = settings.model_copy(update={"nats_monitoring_url": nats.monitoring_url})
    except OperatorError as error:
        report_error(str(error))
        return 1
    url = settings.nats_url or (nats.url if nats else connection.DEFAULT_URL)

    log_handler = None if shipping is None else shipping(url)
    if log_handler is not None:
        log.addHandler(log_handler)
    components = assemble(settings, url, settings.origins(), capacity, authority, worker)
    connections = components.connections
    acceptor = Acceptor(
        connections.admission,
        connections.clock,
        partial(GuardedHttp, stream_protocol=stream_protocol(connections, settings.hsts)),
        certificate.get_context if certificate else None,
        connections.request_auth,
    )
    main_asgi = main_app(connections, components.history, components.gateways, settings.hsts)
    main = HttpServer(main_asgi, main_socket, websocket_protocol(connections), acceptor.protocol)
    ops_asgi = relay_ops_app(
        connections,
        components.gateways,
        components.ready,
        lambda: components.ingest.lag,
        components.metrics_snapshot,
        liveness.check,
    )
    ops: Server = (
        worker.ops(ops_asgi, partial(_worker_metrics, components))
        if worker
        else ops_server(HostCheck(ops_asgi, HostNames(settings.ops_allowed_hosts)), ops_socket)
    )
    loaded = asyncio.Event()
    code = 0
    # The servers run while the event log is loaded: probes get "not ready", and clients are told to retry.
    servers: tuple[Server, Server] = (main, ops)
    server_tasks = [asyncio.create_task(server.run_until_stopped(), name="server") for server in servers]
    background = [asyncio.create_task(components.run(loaded), name="components")]
    background.append(asyncio.create_task(reload.run(components, certificate), name="reload"))
    if certificate is not None:
        background.append(asyncio.create_task(_reload_renewed(certificate), name="certificate"))
    if nats is not None and nats.supervisor_task is not None:
        background.append(nats.supervisor_task)
    tasks = [*server_tasks, *background]
    try:
        address = f"{'https' if certificate else 'http'}://{main.address}"
        announce(f"relay: {address}  metrics: http://{ops.address}/metrics  NATS: {redact_url(url)}")
        await race(loaded.wait(), *tasks, stopping.wait())
        if loaded.is_set() and not _ended(tasks):
            connections.start_accepting()
            _freeze_heap()
            announce("ready")
            seconds = time.monotonic() - started_at
            log.info("ready after %.1f s", seconds, extra={"seconds": round(seconds, 3), "address": address})
            await race(*tasks, stopping.wait())
        for task in _ended(tasks):
            await task  # raises the error that ended it
        await drain(connections, main, settings.drain_delay, settings.drain, stopping)
    except OperatorError as error:
        report_error(str(error))
        code = error.exit_code
        # Clients receive a close message, so that they reconnect to another relay.
        await drain(connections, main, 0.0, settings.drain, stopping)
    finally:
        # From here on, ``/livez`` fails: if anything below hangs, the relay is restarted.
        liveness.ended = True
        shutdown.exit_within(END_GRACE)
        # NATS stops last: components read from it, and the log handler publishes its last records to it.
        await cancel_and_wait(*background)
        for server in servers:
            server.should_exit = True
        await asyncio.gather(*server_tasks, return_exceptions=True)
        if log_handler is not None:
            log.removeHandler(log_handler)
            await asyncio.to_thread(log_handler.close)  # waits until all records are in the stream
        if nats is not None:
            await nats.stop()
    log.info("stopped", extra={"code": code, "seconds": round(time.monotonic() - started_at, 3)})
    return code


def _worker_metrics(components: Components) -> MetricsSnapshot:
    """Return the metrics of a worker and of its process, for the supervisor."""
    return replace(components.metrics_snapshot(), process=process_numbers())


def _ended(tasks: Iterable[asyncio.Task[None]]) -> list[asyncio.Task[None]]:
    return [task for task in tasks if task.done()]


def _freeze_heap() -> None:
    """Exclude all existing objects from garbage collection, since they live as long as the relay."""
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def _listen_ops(settings: ServeSettings, main_port: int) -> Listener:
    try:
        return listen(settings.ops_host, settings.ops_port, "--ops-port")
    except ListenError as error:
        raise same_port_error(error, settings.ops_port, main_port) from None


def _raise_capacity(connections: int) -> int:
    """Raise the file descriptor limit of the process; each client connection needs one descriptor.

    Args:
        connections: configured maximum; 0 means as many as fit.

    Returns:
        The number of connections that there are descriptors for.
    """
    descriptors = raise_descriptor_limit(max(DESCRIPTORS, connections + RESERVED_DESCRIPTORS))
    capacity = max(1, descriptors - RESERVED_DESCRIPTORS)
    if connections > capacity:
        log.warning(
            "%d file descriptors allow up to %s, not %d; raise the limit (ulimit -n)",
            descriptors,
            count(capacity, "client"),
            connections,
        )
    else:
        allowed = count(connections or capacity, "client")
        log.info("%d file descriptors allow up to %s", descriptors, allowed)
    return capacity


def _startup_fields(settings: ServeSettings) -> dict[str, Any]:
    """Return the log fields of the first line: the settings that matter, without secrets."""
    return {
        "version": package_version(),
        "pid": os.getpid(),
        "host": settings.host,
        "auth": settings.auth,
        "insecure": settings.insecure,
        "tls": settings.tls_cert is not None,
        "nats": redact_url(settings.nats_url) if settings.nats_url else "embedded",
        "subjects": settings.subjects,
        "client_rate": settings.client_rate,
        "log_level": settings.log_level,
        "drain": settings.drain,
    }


async def _reload_renewed(certificate: Certificate) -> None:
    """Reload the certificate when its files change; they are polled every few seconds."""
    while True:
        await asyncio.sleep(POLL_INTERVAL)
        certificate.refresh()
