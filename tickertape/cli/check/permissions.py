"""Check of the NATS permissions that a relay needs.

Each permission is tried with a request that has no effect: a publish that names a stream which does not store
the subject is rejected, and so is a consumer without a configuration. No other user needs all of them: the
operator of ``deploy/nats`` may not store rejected events, and is told to run the check as the relay.
"""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.cli.check.finding import Finding
from tickertape.names import Names
from tickertape.nats.client import watch_denials
from tickertape.nats.errors import PermissionDenied

_TIMEOUT: Final = 2.0
"""Seconds for a reply; without one, the permission is granted but the request is not served."""

_STORES_NOTHING: Final = {"Nats-Expected-Stream": "-"}
"""Header with which JetStream rejects a message: no stream has this name."""

_OTHER_USER: Final = "run the check as the user of the relay"

_READ: Final = ("EVENTS", "LATEST", "HEALTH", "HISTORY")
"""Streams that a relay reads."""


async def check_permissions(
    client: Client, names: Names, *, audit: bool, control: bool = False
) -> list[Finding]:
    """Check the permissions that a relay needs.

    Args:
        client: connected client of the relay's user.
        names: names of the deployment.
        audit: whether the relay stores audit records.
        control: whether the relay publishes silences.
    """
    requests = [_try_request(client, *attempt) for attempt in _attempts(names, audit=audit, control=control)]
    flow = [_try_publish(client, f"$JS.FC.{names.stream(stream)}.check.check") for stream in _READ]
    denied = [error for error in await asyncio.gather(*requests, *flow) if error is not None]
    if not denied:
        return [Finding.ok("permissions", "this NATS user has the permissions that a relay needs")]
    return [
        Finding.error("permissions", error.message, f"{error.hint}, or {_OTHER_USER}") for error in denied
    ]


def _attempts(
    names: Names, *, audit: bool, control: bool
) -> Iterator[tuple[str, bytes, dict[str, str] | None]]:
    yield names.subject("rejected.check"), b"", _STORES_NOTHING
    if audit:
        yield names.subject("audit.check"), b"", _STORES_NOTHING
    if control:
        yield names.subject("watchdog.silenced.check.check"), b"", _STORES_NOTHING
    for stream in map(names.stream, _READ):
        yield f"$JS.API.CONSUMER.CREATE.{stream}", b"{}", None
        yield f"$JS.API.DIRECT.GET.{stream}", b'{"seq":1}', None


async def _try_request(
    client: Client, subject: str, body: bytes, headers: dict[str, Any] | None
) -> PermissionDenied | None:
    try:
        await client.request(subject, body, timeout=_TIMEOUT, headers=headers)
    except PermissionDenied as error:
        return error
    except (NatsError, TimeoutError):
        pass  # granted; other checks report that JetStream or the stream is missing
    return None


async def _try_publish(client: Client, subject: str) -> PermissionDenied | None:
    with watch_denials(client, [subject]) as denied:
        await client.publish(subject)
        with contextlib.suppress(NatsError, TimeoutError):
            await client.flush()
        if denied.done():
            error = denied.exception()
            assert isinstance(error, PermissionDenied)
            return error
    return None
