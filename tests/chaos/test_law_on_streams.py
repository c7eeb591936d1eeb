"""The conservation law on HTTP streams, while relays and NATS are killed and the stream deletes events.

Each client resumes at either relay: one of Server-Sent Events with the last id that it received, as a browser
does, and one of JSON lines with its last cursor. ``test_law_on_sockets.py`` describes the test.
"""

import random
from pathlib import Path
from typing import Final

from tests.chaos.test_law_on_sockets import Client, check_law
from tests.support.clients.stream_client import Rejected, stream
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

CLIENTS: Final = 56


class StreamClient(Client):
    """Client that uses either format, with and without compression."""

    def __init__(
        self, relays: list[str], mode: str, expected: tuple[tuple[str, ...], str], choose: random.Random
    ) -> None:
        super().__init__(relays, mode, expected, choose)
        self._path = choose.choice(["/sse", "/stream"])
        self._last_id = ""

    @staticmethod
    def address_of(relay: Relay) -> str:
        """Return the URL of a relay."""
        return relay.url

    async def _follow(self, relay: str) -> None:
        query = dict(self._query)
        if self.ledger.cursor and not self._last_id:
            query["cursor"] = self.ledger.cursor
        # One in four clients disconnects on its own, between two messages.
        patience = self._choose.randrange(5, 200) if self._choose.random() < 0.25 else None
        try:
            async with stream(
                relay + self._path, last_id=self._last_id, gzip=self._choose.random() < 0.5, query=query
            ) as client:
                self.connections += 1
                while patience is None or patience > 0:
                    self.ledger.note(await client.read())
                    if self._path == "/sse" and client.last_id:
                        # From here on, the position of the client is the one that it will resume from.
                        self._last_id = client.last_id
                        self.ledger.cursor = client.last_id.partition("~")[0]
                    if patience is not None:
                        patience -= 1
        except Rejected as error:
            if error.status != 503:  # the relay is not ready yet
                raise AssertionError(error) from None


def test_the_law_holds_on_streams_while_everything_is_killed(tmp_path: Path, nats_server: NatsServer) -> None:
    """Every event that is lost, repeated or out of order was reported to the client in a gap."""
    check_law(nats_server, StreamClient, CLIENTS)
