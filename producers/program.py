"""What the producers' programs share: a line for the operator, a stop by signal, streams that are there."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from contracts import connect
from contracts.connect import NatsSettings
from contracts.streams import Names, Provisioned, StreamsError, provision

ANSWER_TIMEOUT: Final = 5.0
"""Seconds for a connection that is to answer a single question."""

RETRY_WAIT: Final = 0.5
"""Seconds between two tries when NATS goes away while its streams are being looked at."""


def say(program: str, text: str) -> None:
    """Write one line for the operator to standard error."""
    print(f"tickertape {program}: {' '.join(text.splitlines())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def stop_on_signals() -> Iterator[asyncio.Event]:
    """Yield an event that SIGTERM and SIGINT set; the handlers are taken out at the end."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    handled = []
    for number in (signal.SIGTERM, signal.SIGINT):
        # Only the main thread of a UNIX process can have them; elsewhere the caller cancels.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            loop.add_signal_handler(number, stop.set)
            handled.append(number)
    try:
        yield stop
    finally:
        for number in handled:
            loop.remove_signal_handler(number)


async def client_soon(program: str, settings: NatsSettings) -> Client | None:
    """Connect for a single question; None, and a line for the operator, when NATS does not answer.

    Args:
        program: who asks.
        settings: where NATS is.
    """
    name = f"tickertape-{program}"
    try:
        async with asyncio.timeout(ANSWER_TIMEOUT):
            return await connect.connect(settings.nats_url, creds=settings.nats_creds, name=name)
    except TimeoutError:
        url = connect.shown(settings.nats_url)
        say(program, f"NATS at {url} does not answer; start it, or give --nats-url")
        return None


async def ensure_streams(client: Client, names: Names) -> Provisioned:
    """Provision the streams; when NATS goes away meanwhile, begin again.

    Raises:
        StreamsError: JetStream is off, or a stream is there with settings that break the contract.
    """
    while True:
        reconnects = client.stats["reconnects"]
        try:
            return await provision(client, names)
        except (StreamsError, NatsError) as error:
            if client.is_connected and client.stats["reconnects"] == reconnects:
                if isinstance(error, StreamsError):
                    raise
                raise StreamsError(
                    f"the streams cannot be looked at: {error}", "look at the server's log"
                ) from None
        await asyncio.sleep(RETRY_WAIT)
