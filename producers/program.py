"""What the producers' programs share: a line for the operator, a stop by signal, streams that are there."""

import asyncio
import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from contracts.streams import Names, Provisioned, StreamsError, provision

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
