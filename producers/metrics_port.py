"""``/metrics`` of a producer's program, on a port of its own, from a thread that is watched."""

import asyncio
from typing import NoReturn

from prometheus_client import CollectorRegistry, start_http_server

from contracts.listeners import LOOK_EVERY, ListenError, address_of, is_listening, stopped


class MetricsPort:
    """A port that serves a registry, for as long as the program runs.

    Args:
        host: address to listen on.
        port: of that address.
        registry: whose metrics are served.

    Raises:
        ListenError: the port cannot be listened on.
    """

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=registry)
        except OSError as error:
            raise ListenError(
                f"{host}:{port} for metrics cannot be listened on: {error.strerror or error}",
                "give another --metrics-port",
            ) from None
        self._address = address_of(self._server.socket)

    def __repr__(self) -> str:
        return f"MetricsPort({self._address})"

    async def watch(self) -> NoReturn:
        """Look after the port until cancelled.

        Raises:
            ListenError: it is not served any more.
        """
        while self._thread.is_alive() and is_listening(self._server.socket):  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(LOOK_EVERY)
        raise stopped(self._address)
