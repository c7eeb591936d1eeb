"""How every program of ours reaches NATS: the settings, and a connection that waits and never gives up."""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

from nats.aio.client import Client
from nats.errors import Error as NatsError
from pydantic import AfterValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from contracts.access import INBOX_PREFIX, Access, AccessError
from contracts.client import SafeClient
from contracts.outage import ConnectError, reason_of, refused, shown, trouble
from contracts.stream_sizes import SizesText, parse_sizes
from contracts.streams import Names

DEFAULT_URL: Final = "nats://127.0.0.1:4222"
CONNECT_TIMEOUT: Final = 2.0
RECONNECT_WAIT: Final = 0.25
"""Seconds between attempts; nats-py waits 2, which a page notices."""

PING_INTERVAL: Final = 5
"""Seconds; with two pings outstanding a dead peer is noticed in 15, not in the 4 minutes of the default."""


ONCE_TIMEOUT: Final = 5.0
"""Seconds for a connection that is to answer a single question."""


_NO_PORT: Final = re.compile(r":(?!//)(?!\d+(?:[,/]|$)).*")
"""What stands in the place of a port and is none: a user's password, when the rest is missing."""


def _checked_url(value: str) -> str:
    for part in value.split(","):
        url = urlsplit(part.strip())
        try:
            known = url.scheme in ("nats", "tls", "ws", "wss") and bool(url.hostname)
            _ = url.port
        except ValueError:
            known = False  # not with the error's own text, which may hold half of a password
        if not known:
            text = _NO_PORT.sub(":***", shown(value))
            raise ValueError(f"{text!r} is no NATS address; write it as {DEFAULT_URL}")
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
    nats_ca: Path | None = None
    """Certificates (PEM) that vouch for the server; TLS is then required."""
    nats_cert: Path | None = None
    """Certificate (PEM) of this program."""
    nats_key: Path | None = None
    """Its private key (PEM)."""
    nats_creds: Path | None = None
    """A .creds file."""
    nats_nkey_file: Path | None = None
    """File with the seed of an nkey user."""
    nats_user: str | None = None
    """Name of a user with a password."""
    nats_password: SecretStr | None = None
    """The password; others on this machine see what is on a command line."""
    nats_password_file: Path | None = None
    """File with the password."""
    nats_token: SecretStr | None = None
    """The token of a server that has one for all."""
    nats_token_file: Path | None = None
    """File with the token."""
    nats_inbox_prefix: str = INBOX_PREFIX
    """First tokens of the subjects on which answers come."""
    subject_prefix: SubjectPrefix = ""
    """First tokens of every subject in NATS; clients never see it."""
    streams_max_bytes: SizesText = Field(
        "",
        description="sizes of streams that are created, as in EVENTS=256MiB,LATEST=32MiB; 1472 MiB else",
    )

    def names(self) -> Names:
        """The deployment: names of its subjects and streams, and their sizes."""
        return Names(self.subject_prefix, parse_sizes(self.streams_max_bytes))

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name, value in super().__repr_args__():
            yield name, shown(value) if name == "nats_url" and value else value

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        access = self.access()
        url = self.nats_url or ""
        if access.identifies and "@" in url:
            raise ValueError(
                f"NATS address {shown(url)} holds a user, and there are other credentials; give one"
            )
        if access.tls and "ws://" in url:
            raise ValueError(
                f"NATS address {shown(url)} has no TLS, and certificates are given; write wss://"
            )
        return self

    def access(self) -> Access:
        """How to reach NATS with these settings.

        Raises:
            ValueError: they contradict each other; those of a valid model do not.
        """
        return Access(
            ca=self.nats_ca,
            cert=self.nats_cert,
            key=self.nats_key,
            creds=self.nats_creds,
            nkey_file=self.nats_nkey_file,
            user=self.nats_user,
            password=self.nats_password.get_secret_value() if self.nats_password else None,
            password_file=self.nats_password_file,
            token=self.nats_token.get_secret_value() if self.nats_token else None,
            token_file=self.nats_token_file,
            inbox_prefix=self.nats_inbox_prefix,
        )


async def connect(
    url: str,
    *,
    name: str,
    access: Access | None = None,
    on_up: Callable[[], Awaitable[None]] | None = None,
    on_down: Callable[[str], Awaitable[None]] | None = None,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> Client:
    """Connect to NATS, waiting for as long as it is away, and keep reconnecting for ever.

    Credentials that NATS refuses are waited for, too: they are mended there, or in their file, and count from
    the next try on.

    Args:
        url: one address or several with commas.
        name: what the server's monitoring shows.
        access: credentials and certificates.
        on_up: awaited at each connection, the first too.
        on_down: awaited when NATS is away, with the reason; once per outage, also before the first
            connection, and once more when it turns out that NATS ``refused`` us.
        on_error: awaited for errors while connected, such as a permission that is missing.

    Raises:
        AccessError: a file with credentials or certificates cannot be used.
    """
    access = access or Access()
    access.check()
    down = ""

    async def lost(reason: str) -> None:
        nonlocal down
        if not down or (refused(reason) and not refused(down)):
            down = reason
            if on_down:
                await on_down(reason)

    async def up() -> None:
        nonlocal down
        down = ""
        if on_up:
            await on_up()

    async def failed(error: Exception) -> None:
        if not client.is_connected:
            await lost(reason_of(error, url, access))
        elif on_error:
            await on_error(error)

    async def disconnected() -> None:
        await lost("the connection was lost")

    client = SafeClient(access, url)
    await client.connect(
        servers=_addresses(url),
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
        **client.access_options(),
    )
    if (task := asyncio.current_task()) is not None and task.cancelling():
        # nats-py swallows a cancellation in some turns of its handshake; who cancelled would wait for ever.
        await close(client)
        raise asyncio.CancelledError
    await up()
    return client


async def once(
    url: str,
    *,
    name: str,
    access: Access | None = None,
    on_error: Callable[[Exception], Awaitable[None]] | None = None,
) -> Client:
    """Connect for a single question, without waiting for NATS to come, or to come back.

    Args:
        url, name, access, on_error: as in ``connect``.

    Raises:
        ConnectError: NATS is not there, or refuses.
        AccessError: a file with credentials or certificates cannot be used.
    """
    access = access or Access()
    access.check()
    client = SafeClient(access, url)
    seen: list[Exception] = []

    async def failed(error: Exception) -> None:
        seen.append(error)
        if client.is_connected and on_error:
            await on_error(error)

    try:
        async with asyncio.timeout(ONCE_TIMEOUT):
            await client.connect(
                servers=_addresses(url),
                name=name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                connect_timeout=CONNECT_TIMEOUT,  # type: ignore[arg-type]
                reconnect_time_wait=RECONNECT_WAIT,  # type: ignore[arg-type]
                error_cb=failed,
                **client.access_options(),
            )
    except (NatsError, OSError, TimeoutError) as error:
        if not client.is_closed:
            await client.close()
        # What came last is often only that no server is left to try.
        raise ConnectError(url, reason_of(seen[-1] if seen else error, url, access)) from None
    return client


def _addresses(url: str) -> list[str]:
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
    "NatsSettings",
    "NatsUrl",
    "SubjectPrefix",
    "close",
    "connect",
    "once",
    "refused",
    "shown",
    "trouble",
]
