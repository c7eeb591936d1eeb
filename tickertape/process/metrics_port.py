"""``/metrics`` of a producer's program, at every address of its host, from threads that are watched."""

import asyncio
from typing import Any, NoReturn

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from tickertape.process.addresses import is_unavailable, resolve
from tickertape.process.listeners import POLL_INTERVAL, ListenError, is_listening, listener_lost
from tickertape.urls import host_port


class MetricsPort:
    """A port that serves metrics, for as long as the program runs.

    Args:
        host: name or address to listen on; addresses that this machine has not are left out.
        port: the same at all of them.
        collector: of the metrics that are served.

    Raises:
        ListenError: the port cannot be listened on.
    """

    def __init__(self, host: str, port: int, collector: Collector) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self._address = host_port(host, port)
        self._served: list[Any] = []  # servers with their threads
        try:
            self._start(host, port, registry)
        except OSError as error:
            self.close()
            raise ListenError(
                f"{self._address} for metrics cannot be listened on: {error.strerror or error}",
                "give another --metrics-port",
            ) from None

    def __repr__(self) -> str:
        return f"MetricsPort({self._address})"

    def close(self) -> None:
        """End the servers, and wait for the end of their threads."""
        for server, thread in self._served:
            server.shutdown()
            server.server_close()
            thread.join()

    async def watch(self) -> NoReturn:
        """Look after the port until cancelled.

        Raises:
            ListenError: it is not served any more, at one of its addresses.
        """
        while self._is_served():  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(POLL_INTERVAL)
        raise listener_lost(self._address)

    def _is_served(self) -> bool:
        return all(thread.is_alive() and is_listening(server.socket) for server, thread in self._served)

    def _start(self, host: str, port: int, registry: CollectorRegistry) -> None:
        refused: OSError | None = None
        for _, address in resolve(host, port):
            try:
                self._served.append(start_http_server(port, addr=str(address[0]), registry=registry))
            except OSError as error:
                if not is_unavailable(error):
                    raise
                refused = error
        if refused is not None and not self._served:
            raise refused
