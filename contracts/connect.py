"""How every program of ours reaches NATS: the settings, and a connection that waits and never gives up."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import AfterValidator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.streams import Names

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
CONNECT_TIMEOUT: Final = 2.0
RECONNECT_WAIT: Final = 0.25
"""Seconds between attempts; nats-py waits 2, which a page notices."""

PING_INTERVAL: Final = 5
"""Seconds; with two pings outstanding a dead peer is noticed in 15, not in the 4 minutes of the default."""


def _checked_url(value: str) -> str:
    for part in value.split(","):
        url = urlsplit(part.strip())
        if url.scheme not in ("nats", "tls", "ws", "wss") or not url.hostname:
            raise ValueError(f"{shown(part)!r} is no NATS address; write it as {DEFAULT_URL}")
        _ = url.port  # raises ValueError when it is out of range
    return value


def _checked_prefix(value: str) -> str:
    Names(value)
    return value


NatsUrl = Annotated[str, AfterValidator(_checked_url)]
SubjectPrefix = Annotated[str, AfterValidator(_checked_prefix)]


class NatsSettings(BaseSettings):
    """Options of every command that talks to NATS; each also as ``TICKERTAPE_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix="TICKERTAPE_", frozen=True, extra="ignore")

    nats_url: NatsUrl = DEFAULT_URL
    """Address of NATS; several with commas."""
    nats_creds: Path | None = None
    """A .creds file."""
    subject_prefix: SubjectPrefix = ""
    """First tokens of every subject in NATS; clients never see it."""


def shown(url: str) -> str:
    """A NATS address without the password that it may carry, for people and logs."""
    return ",".join(_without_password(part.strip()) for part in url.split(","))


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    if not at:
        return url
    scheme, mark, _ = head.partition("://")
    return f"{scheme}{mark}***@{tail}" if mark else f"***@{tail}"


async def connect(
    url: str,
    *,
    name: str,
    creds: Path | None = None,
    on_up: Callable[[], Awaitable[None]] | None = None,
    on_down: Callable[[str], Awaitable[None]] | None = None,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> Client:
    """Connect to NATS, waiting for as long as it is away, and keep reconnecting for ever.

    Args:
        url: one address or several with commas.
        name: what the server's monitoring shows.
        creds: a .creds file.
        on_up: awaited at each connection, the first too.
        on_down: awaited when NATS is away, with the reason; once per outage, also before the first
            connection.
        on_error: awaited for errors while connected, such as a permission that is missing.

    Raises:
        OSError: the credentials file cannot be read.
    """
    down = False

    async def lost(reason: str) -> None:
        nonlocal down
        if not down:
            down = True
            if on_down:
                await on_down(reason)

    async def up() -> None:
        nonlocal down
        down = False
        if on_up:
            await on_up()

    async def failed(error: Exception) -> None:
        if not client.is_connected:
            await lost(str(error) or type(error).__name__)
        elif on_error:
            await on_error(error)

    async def disconnected() -> None:
        await lost("the connection was lost")

    client = Client()
    await client.connect(
        servers=[part.strip() for part in url.split(",")],
        name=name,
        max_reconnect_attempts=-1,
        ping_interval=PING_INTERVAL,
        max_outstanding_pings=2,
        disconnected_cb=disconnected,
        reconnected_cb=up,
        error_cb=failed,
        **_options(creds),
    )
    await up()
    return client


def _options(creds: Path | None) -> dict[str, Any]:
    # The two times are annotated as int in nats-py, and used as float.
    options: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "reconnect_time_wait": RECONNECT_WAIT}
    if creds:
        if not creds.is_file():
            raise FileNotFoundError(f"credentials file {creds} is not there")
        options["user_credentials"] = str(creds)
    return options


async def close(client: Client, timeout: float = 2.0) -> None:  # noqa: ASYNC109
    """Drain and close a connection; closes at once when it is not connected, since draining would raise.

    Args:
        client: may be closed already.
        timeout: seconds that draining may take.
    """
    if client.is_closed:
        return
    if client.is_connected:
        with contextlib.suppress(NatsError, asyncio.TimeoutError, OSError):
            await asyncio.wait_for(client.drain(), timeout)
    if not client.is_closed:
        await client.close()


__all__ = [
    "DEFAULT_URL",
    "NatsSettings",
    "NatsUrl",
    "SubjectPrefix",
    "close",
    "connect",
    "shown",
]
