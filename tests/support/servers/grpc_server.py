"""A gRPC server with a health service."""

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import trustme

from tests.support.patience import PATIENCE

_ANSWERS = {
    b"": b"\x08\x01",
    b"orders": b"\x08\x01",
    b"quotes": b"\x08\x02",
    b"new": b"\x08\x63",
    b"empty": b"",
}


def _check(request: bytes, context: Any) -> bytes:
    """Answer a health check."""
    name = request[2:]
    authorization = dict(context.invocation_metadata()).get("authorization")
    if name == b"private":
        if authorization != "Bearer hunter22":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, f"who is {authorization}?")
        return b"\x08\x01"
    if name == b"other":
        return b"\x12\x04text"
    if name not in _ANSWERS:
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    return _ANSWERS[name]


@contextlib.contextmanager
def grpc_server(authority: trustme.CA) -> Iterator[tuple[int, int]]:
    """Run a server; yield its ports without and with TLS."""
    # The name is that of a pool of threads which outlive a test.
    with ThreadPoolExecutor(2, thread_name_prefix="worker-grpc") as pool:
        server = grpc.server(pool)
        handlers = {"Check": grpc.unary_unary_rpc_method_handler(_check)}
        service = grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers)
        server.add_generic_rpc_handlers((service,))
        certificate = authority.issue_cert("localhost")
        pair = certificate.private_key_pem.bytes(), certificate.cert_chain_pems[0].bytes()
        credentials = grpc.ssl_server_credentials([pair])
        ports = server.add_insecure_port("127.0.0.1:0"), server.add_secure_port("127.0.0.1:0", credentials)
        server.start()
        try:
            yield ports
        finally:
            server.stop(None).wait(PATIENCE)
