"""Interface of the protocols that take over the socket of a request for a stream."""

import asyncio
from typing import Protocol

from tickertape.relay.auth.request_auth import Headers


class StreamProtocol(Protocol):
    """Protocol of a socket whose request is answered with a stream."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take over the socket, with the slot of its connection."""

    def data_received(self, data: bytes) -> None:
        """Handle what the client has sent after its request."""

    def answer_head(self, target: str, headers: Headers, method: str, version: str) -> None:
        """Answer a request.

        Args:
            target: path and query, undecoded; ASCII.
            headers: headers, with names in lower case.
            method: ``GET`` or ``HEAD``.
            version: version of HTTP.
        """
