"""Startup of programs that use NATS: a connection for a single command, and waiting for the streams."""

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
"""Seconds between two checks for streams that another user creates; NATS logs each denied attempt."""

RETRY_DELAY: Final = 0.5
"""Seconds between two attempts when the connection is lost while the streams are checked."""


async def connect_or_report(program: str, settings: NatsSettings) -> Client | None:
    """Connect for a single command; print the error and return None if NATS cannot be reached.

    Args:
        program: name of the command, such as ``ship``.
        settings: address and credentials of NATS.
    """
    try:
        return await connection.connect_once(
            settings.nats_url, name=f"tickertape-{program}", access=settings.access()
        )
    except OSError as error:
        print_notice(program, str(error))
        return None


async def ensure_streams(client: Client, names: Names, program: str) -> Provisioned:
    """Provision the streams; start over if the connection is lost in the meantime.

    If this user may not create a missing stream, print a message once and wait until the stream exists.

    Raises:
        StreamsError: JetStream is not available, or a stream violates the contract.
    """
    reported = ""
    while True:
        reconnects = client.stats["reconnects"]
        try:
            return await provision(client, names)
        except (StreamsError, NatsError) as error:
            # An error around a reconnect says nothing about the streams.
            if client.is_connected and client.stats["reconnects"] == reconnects:
                if not isinstance(error, StreamsError):
                    raise StreamsError(
                        f"the streams cannot be checked: {error}", "check the server log"
                    ) from None
                if not isinstance(error, StreamMissing):
                    raise
                if reported != str(error):
                    reported = str(error)
                    print_notice(program, f"{error}; waiting until it exists")
                await asyncio.sleep(MISSING_STREAM_DELAY)
        await asyncio.sleep(RETRY_DELAY)
