"""What the producers' programs ask of NATS before they begin: a connection, and streams that are there."""

import asyncio
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.settings import NatsSettings
from tickertape.nats.streams import Provisioned, StreamMissing, StreamsError, provision
from tickertape.process.console import print_notice

MISSING_STREAM_DELAY: Final = 2.0
"""Seconds between two looks for streams that somebody else creates; NATS logs each try to create them."""

RETRY_DELAY: Final = 0.5
"""Seconds between two tries when NATS goes away while its streams are being looked at."""


async def connect_or_report(program: str, settings: NatsSettings) -> Client | None:
    """Connect for a single question; None, and a line for the operator, when NATS does not answer.

    Args:
        program: who asks.
        settings: where NATS is.
    """
    try:
        return await connection.connect_once(
            settings.nats_url, name=f"tickertape-{program}", access=settings.access()
        )
    except OSError as error:
        print_notice(program, str(error))
        return None


async def ensure_streams(client: Client, names: Names, program: str) -> Provisioned:
    """Provision the streams; when NATS goes away meanwhile, begin again.

    Streams that this user may not create are waited for, which is said once.

    Raises:
        StreamsError: JetStream is off, or a stream is there with settings that break the contract.
    """
    said = ""
    while True:
        reconnects = client.stats["reconnects"]
        try:
            return await provision(client, names)
        except (StreamsError, NatsError) as error:
            if client.is_connected and client.stats["reconnects"] == reconnects:
                if not isinstance(error, StreamsError):
                    raise StreamsError(
                        f"the streams cannot be looked at: {error}", "look at the server's log"
                    ) from None
                if not isinstance(error, StreamMissing):
                    raise
                if said != str(error):
                    said = str(error)
                    print_notice(program, f"{error}; waiting for that")
                await asyncio.sleep(MISSING_STREAM_DELAY)
        await asyncio.sleep(RETRY_DELAY)
