"""How every program of ours reaches NATS: a connection that waits and never gives up."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

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

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
CONNECT_TIMEOUT: Final = 2.0
RECONNECT_WAIT: Final = 0.25
"""Seconds between attempts; nats-py waits 2, which a page notices."""

PING_INTERVAL: Final = 5
"""Seconds; with two pings outstanding a dead peer is noticed in 15, not in the 4 minutes of the default."""


CONNECT_ONCE_TIMEOUT: Final = 5.0
"""Seconds for a connection that is to answer a single question."""


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

    Credentials that NATS rejects are tried again, too: they may be corrected there, or in their file, which
    is read at each attempt.

    Args:
        url: one address or several with commas.
        name: what the server's monitoring shows.
        access: credentials and certificates.
        on_up: awaited at each connection, the first too.
        on_down: awaited with the failure when NATS is not reached; once per outage, also before the first
            connection, and once more when the failure turns into one of a kind that waiting does not help.
        on_error: awaited for errors while connected, such as a permission that is missing.

    Raises:
        AccessError: a file with credentials or certificates cannot be used.
    """
    access = access or Access()
    access.check_files()
    down: ConnectFailure | None = None

    async def lost(failure: ConnectFailure) -> None:
        nonlocal down
        if down is None or (down.kind.is_transient and not failure.kind.is_transient):
            down = failure
            if on_down:
                await on_down(failure)

    async def up() -> None:
        nonlocal down
        down = None
        if on_up:
            await on_up()

    async def failed(error: Exception) -> None:
        if not client.is_connected:
            await lost(classify_failure(error, url, access))
        elif on_error:
            await on_error(error)

    async def disconnected() -> None:
        await lost(unreachable(url, "the connection was lost"))

    client = SafeClient(access, url)
    await client.connect(
        servers=_split_urls(url),
        name=name,
        max_reconnect_attempts=-1,
        # The two times are annotated as int in nats-py, and used as float.
        connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
        reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
        ping_interval=PING_INTERVAL,
        max_outstanding_pings=2,
        disconnected_cb=disconnected,
        reconnected_cb=up,
        error_cb=failed,
        **client.connect_options(),
    )
    if (task := asyncio.current_task()) is not None and task.cancelling():
        # nats-py swallows a cancellation in some turns of its handshake; who cancelled would wait for ever.
        await close(client)
        raise asyncio.CancelledError
    await up()
    return client


async def connect_once(
    url: str,
    *,
    name: str,
    access: Access | None = None,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> SafeClient:
    """Connect for a single question, without waiting for NATS to come, or to come back.

    Args:
        url, name, access, on_error: as in ``connect``.

    Raises:
        ConnectError: NATS is not reached.
        AccessError: a file with credentials or certificates cannot be used.
    """
    access = access or Access()
    access.check_files()
    client = SafeClient(access, url)
    seen: list[Exception] = []

    async def failed(error: Exception) -> None:
        seen.append(error)
        if client.is_connected and on_error:
            await on_error(error)

    try:
        async with asyncio.timeout(CONNECT_ONCE_TIMEOUT):
            await client.connect(
                servers=_split_urls(url),
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
                reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
                error_cb=failed,
                **client.connect_options(),
            )
    except (NatsError, OSError, TimeoutError) as error:
        if not client.is_closed:
            await client.close()
        # What came last is often only that no server is left to try.
        raise ConnectError(classify_failure(seen[-1] if seen else error, url, access)) from None
    return client


async def connect_like(client: Client, *, name: str) -> SafeClient:
    """Connect as ``once``, to where a client that ``connect`` has made is connected, with the same access.

    Args:
        client: a client of ours.
        name: what the server's monitoring shows.

    Raises:
        ConnectError, AccessError: as of ``once``.
    """
    assert isinstance(client, SafeClient)
    return await connect_once(client.url, name=name, access=client.access)


def _split_urls(url: str) -> list[str]:
    return [part.strip() for part in url.split(",")]


async def close(client: Client, timeout: float = 2.0) -> None:  # noqa: ASYNC109
    """Drain and close a connection; closes at once when it is not connected, since draining would raise.

    Args:
        client: may be closed already.
        timeout: seconds that draining may take.
    """
    if client.is_closed:
        return
    if client.is_connected:
        with contextlib.suppress(NatsError, TimeoutError, OSError):
            async with asyncio.timeout(timeout):
                await client.drain()
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
