"""Connections to NATS: one that retries without limit, and one for a single request."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.nats.client import SafeClient
from tickertape.nats.connect_errors import (
    ConnectError,
    ConnectFailure,
    ConnectFailureKind,
    classify_failure,
    unreachable,
)
from tickertape.nats.credentials import Access, AccessError
from tickertape.net.loopback import loopback_url
from tickertape.net.protocol_detection import PortProtocol, detect_protocol
from tickertape.process.tasks import cancel_and_wait

DEFAULT_PORT: Final = 4222
DEFAULT_URL: Final = loopback_url("nats", DEFAULT_PORT)
CONNECT_TIMEOUT: Final = 2.0
"""Seconds for one attempt to connect."""

RECONNECT_WAIT: Final = 0.25
"""Seconds between connection attempts; nats-py's default of 2 would be noticeable to dashboard users."""

PING_INTERVAL: Final = 5
"""Seconds between pings; with two pings outstanding, a dead peer is detected within 15 seconds instead of the
default 4 minutes."""


CONNECT_ONCE_TIMEOUT: Final = 5.0
"""Seconds for a connection that is opened for a single request."""


DRAIN_CANCEL_INTERVAL: Final = 0.25
"""Seconds between two cancellations of a drain that takes too long."""


async def connect(
    url: str,
    *,
    name: str,
    access: Access | None = None,
    on_up: Callable[[], Awaitable[None]] | None = None,
    on_down: Callable[[ConnectFailure], Awaitable[None]] | None = None,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> SafeClient:
    """Connect to NATS, retrying without a limit, and reconnect whenever the connection is lost.

    Rejected credentials are retried, too: they may be corrected on the server, or in their file, which is
    read at each attempt.

    Args:
        url: one address, or several separated by commas.
        name: name of the connection in the server's monitoring.
        access: credentials and certificates.
        on_up: awaited after each connection, including the first.
        on_down: awaited with the failure when NATS cannot be reached: once per outage, also before the first
            connection, and a second time if the failure changes to a kind that waiting does not resolve.
        on_error: awaited for errors while connected, such as a denied permission.

    Raises:
        AccessError: a credentials or certificate file cannot be used.
    """
    access = access or Access()
    access.check_files()
    down: ConnectFailure | None = None
    was_up = False

    async def report_down(failure: ConnectFailure) -> None:
        nonlocal down
        if down is None or (down.kind.is_transient and not failure.kind.is_transient):
            down = failure
            if on_down:
                await on_down(failure)

    async def report_up() -> None:
        nonlocal down, was_up
        down, was_up = None, True
        if on_up:
            await on_up()

    async def report_error(error: Exception) -> None:
        # nats-py reports each failed attempt to connect here, too; these belong to the outage.
        if not client.is_connected:
            failure = classify_failure(error, url, access)
            # Only before the first connection, after which the address is known to be right.
            await report_down(failure if down or was_up else await explain(failure, error, url))
        elif on_error:
            await on_error(error)

    async def disconnected() -> None:
        await report_down(unreachable(url, "connection lost"))

    client = SafeClient(access, url)
    await client.connect(
        servers=_split_urls(url),
        name=name,
        max_reconnect_attempts=-1,
        # nats-py annotates both as int, but uses them as float.
        connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
        reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
        ping_interval=PING_INTERVAL,
        max_outstanding_pings=2,
        disconnected_cb=disconnected,
        reconnected_cb=report_up,
        error_cb=report_error,
        **client.connect_options(),
    )
    if (task := asyncio.current_task()) is not None and task.cancelling():
        # nats-py may swallow a cancellation during its handshake; the task would then never end.
        await close(client)
        raise asyncio.CancelledError
    # nats-py calls ``reconnected_cb`` only for later connections.
    await report_up()
    return client


async def connect_once(
    url: str,
    *,
    name: str,
    access: Access | None = None,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> SafeClient:
    """Connect for a single request, without retrying or reconnecting.

    Args:
        url, name, access, on_error: as in ``connect``.

    Raises:
        ConnectError: NATS cannot be reached.
        AccessError: a credentials or certificate file cannot be used.
    """
    access = access or Access()
    access.check_files()
    client = SafeClient(access, url)
    errors: list[Exception] = []

    async def report_error(error: Exception) -> None:
        errors.append(error)
        if client.is_connected and on_error:
            await on_error(error)

    try:
        async with asyncio.timeout(CONNECT_ONCE_TIMEOUT):
            await client.connect(
                servers=_split_urls(url),
                name=name,
                allow_reconnect=False,
                # Without the limit of one attempt, nats-py would try an unreachable address 60 times.
                max_reconnect_attempts=1,
                connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
                reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
                error_cb=report_error,
                **client.connect_options(),
            )
    except (NatsError, OSError, TimeoutError) as error:
        # nats-py leaves the socket open when the first connection fails.
        if not client.is_closed:
            await client.close()
        # The exception often says only that no server is left to try; the last reported error is the cause.
        cause = errors[-1] if errors else error
        raise ConnectError(await explain(classify_failure(cause, url, access), cause, url)) from None
    return client


async def connect_like(client: Client, *, name: str, reconnects: bool = False) -> SafeClient:
    """Connect with the addresses and credentials of an existing client.

    Args:
        client: a client that ``connect`` or ``connect_once`` returned.
        name: name of the connection in the server's monitoring.
        reconnects: whether to connect as ``connect`` does, or as ``connect_once``.

    Raises:
        ConnectError, AccessError: as for these.
    """
    assert isinstance(client, SafeClient)
    if reconnects:
        return await connect(client.url, name=name, access=client.access)
    return await connect_once(client.url, name=name, access=client.access)


async def explain(failure: ConnectFailure, error: Exception, url: str) -> ConnectFailure:
    """Return a failure with the protocol that the port speaks instead of NATS, if it can be told.

    Args:
        failure: failure of the last attempt.
        error: its cause; if the operating system refused the connection, nothing listens.
        url: as in ``connect``; several addresses are not examined.
    """
    if failure.kind is not ConnectFailureKind.UNREACHABLE or "," in url:
        return failure
    if isinstance(error, (ConnectionRefusedError, AccessError)):
        return failure
    parts = urlsplit(url)
    if parts.scheme not in ("nats", "tls") or not parts.hostname:
        return failure
    match await detect_protocol(parts.hostname, parts.port or DEFAULT_PORT):
        case PortProtocol.HTTP:
            reason = "the port speaks HTTP, not NATS"
            hint = "set --nats-url to the client port of nats-server, not to a relay or a monitoring port"
        case PortProtocol.TLS:
            reason = "the port expects TLS before the protocol of NATS"
            hint = "use wss:// for a WebSocket port, or remove handshake_first from the server's tls block"
        case _:
            return failure
    return replace(failure, reason=reason, hint=hint)


def _split_urls(url: str) -> list[str]:
    return [part.strip() for part in url.split(",")]


async def close(client: Client, timeout: float = 2.0) -> None:  # noqa: ASYNC109
    """Drain and close a connection; close it without draining if it is not connected.

    Args:
        client: the client; may be closed already.
        timeout: maximum seconds for draining.
    """
    if client.is_closed:
        return
    # nats-py refuses to drain while it reconnects.
    if client.is_connected:
        # Not asyncio.timeout: draining swallows the first cancellation.
        draining = asyncio.ensure_future(client.drain())
        try:
            await asyncio.wait({draining}, timeout=timeout)
        finally:
            await cancel_and_wait(draining, interval=DRAIN_CANCEL_INTERVAL)
    if not client.is_closed:
        await client.close()


__all__ = [
    "DEFAULT_URL",
    "Access",
    "AccessError",
    "ConnectError",
    "ConnectFailure",
    "ConnectFailureKind",
    "close",
    "connect",
    "connect_like",
    "connect_once",
]
