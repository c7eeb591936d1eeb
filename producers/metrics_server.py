"""Metrics of a producer over HTTP, from threads of their own, at every address of the host that was given."""

from prometheus_client import CollectorRegistry, start_http_server

from contracts.addresses import addresses, is_unavailable


def serve_metrics(host: str, port: int, registry: CollectorRegistry) -> None:
    """Serve ``/metrics`` for as long as the program runs.

    Args:
        host: name or address; addresses that this machine has not are left out.
        port: the same at all of them.
        registry: what is served.

    Raises:
        OSError: the port is taken, or no address can be had.
    """
    refused: OSError | None = None
    served = False
    for _, address in addresses(host, port):
        try:
            start_http_server(port, addr=str(address[0]), registry=registry)
            served = True
        except OSError as error:
            if not is_unavailable(error):
                raise
            refused = error
    if refused is not None and not served:
        raise refused
