"""The ``/metrics`` endpoint of a producer program, on every address of its host."""

import asyncio
from typing import Any, NoReturn

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector

from tickertape.net.addresses import is_unavailable, resolve
from tickertape.net.listeners import POLL_INTERVAL, ListenError, is_listening, listener_lost
from tickertape.urls import host_port


class MetricsPort:
    """HTTP server for metrics that runs until the program ends.

    Args:
        host: name or address to listen on; addresses that do not exist on this machine are skipped.
        port: port on all addresses.
        collector: provides the metrics.

    Raises:
        ListenError: the port is not available.
    """

    def __init__(self, host: str, port: int, collector: Collector) -> None:
        registry = CollectorRegistry()
        registry.register(collector)
        self._address = host_port(host, port)
        self._servers: list[Any] = []  # pairs of server and thread
        try:
            self._start(host, port, registry)
        except OSError as error:
            self.close()
            raise ListenError(
                f"cannot listen on {self._address} for metrics: {error.strerror or error}",
                "choose another --metrics-port",
            ) from None

    def __repr__(self) -> str:
        return f"MetricsPort({self._address})"

    def close(self) -> None:
        """Shut down the servers and join their threads."""
        for server, thread in self._servers:
            server.shutdown()
            server.server_close()
            thread.join()

    async def watch(self) -> NoReturn:
        """Check the servers periodically until cancelled.

        Raises:
            ListenError: the server of one of the addresses has stopped.
        """
        while self._is_serving():  # noqa: ASYNC110 - the server threads set no event
            await asyncio.sleep(POLL_INTERVAL)
        raise listener_lost(self._address)

    def _is_serving(self) -> bool:
        return all(thread.is_alive() and is_listening(server.socket) for server, thread in self._servers)

    def _start(self, host: str, port: int, registry: CollectorRegistry) -> None:
        failure: OSError | None = None
        for _, address in resolve(host, port):
            try:
                # A server of prometheus-client listens on one address only.
                self._servers.append(start_http_server(port, addr=str(address[0]), registry=registry))
            except OSError as error:
                if not is_unavailable(error):
                    raise
                failure = error
        if failure is not None and not self._servers:
            raise failure
