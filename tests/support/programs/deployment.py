"""A relay in each way in which it is deployed: alone, with TLS, with workers, behind a proxy, and mounted.

Attacks run against all of them through one interface.
"""

import os
import socket
import ssl
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from unittest.mock import patch

import trustme

from tests.support.patience import PATIENCE
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import MainPort, Relay, eventually
from tests.support.servers.shipped_proxy import KINDS as PROXIES
from tests.support.servers.shipped_proxy import proxy

STANDALONE: Final = ("plain", "tls", "workers")
"""Deployments in which clients reach the relay's own HTTP server."""

SERVED: Final = (*STANDALONE, *PROXIES)
"""Deployments of ``tickertape serve``, which also serves the dashboard and ``/health``."""

KINDS: Final = (*SERVED, "mounted")

NOT_NGINX: Final = tuple(kind for kind in KINDS if kind != "nginx")
"""Deployments that leave invalid and repeated headers to the relay; nginx rejects such requests itself."""

_AUTHORITY: Final = trustme.CA()
"""Authority of all certificates, so that deployments can run side by side."""

TRUSTED: Final = "127.0.0.1"
"""Address of the proxies."""


@dataclass(frozen=True)
class Deployment(MainPort):
    """A relay as its clients reach it.

    Attributes:
        kind: one of ``KINDS``.
        program: the process, whose output tests read.
        url: URL of the main port, of the proxy if there is one.
        ops_url: URL whose ``/metrics`` has the relay's metrics.
        nats_url: URL of NATS.
        context: TLS context of clients; None without TLS.
    """

    kind: str
    program: Relay | Host
    url: str
    ops_url: str
    nats_url: str
    context: ssl.SSLContext | None = None

    @property
    def pids(self) -> list[int]:
        """Process ids of the relay, including its workers."""
        first = self.program.pid
        children = Path(f"/proc/{first}/task/{first}/children").read_text().split()
        return [first, *map(int, children)] if self.kind == "workers" else [first]

    @property
    def output(self) -> Sequence[str]:
        """Lines that the program has printed, its log included.

        Without uvicorn's own lines about each WebSocket, which contain its URL.
        """
        lines = [*self.program.lines, *self.program.log]
        return [line for line in lines if '"WebSocket /' not in line]

    def connect(self, source: str) -> socket.socket:
        """Open a connection to the main port from a source address."""
        return connect(self.host_port, source, self.context)


def connect(address: tuple[str, int], source: str, context: ssl.SSLContext | None) -> socket.socket:
    """Open a connection, with TLS if there is a context."""
    link = socket.create_connection(address, timeout=PATIENCE, source_address=(source, 0))
    if context is None:
        return link
    try:
        return context.wrap_socket(link, server_hostname=address[0])
    except BaseException:
        link.close()
        raise


@contextmanager
def deployed(kind: str, nats_url: str, folder: Path, **settings: str) -> Iterator[Deployment]:
    """Run a relay in one way.

    While it runs, TLS clients of this process trust its certificate.

    Args:
        kind: one of ``KINDS``.
        nats_url: URL of NATS.
        folder: folder for certificates and the files of a proxy.
        settings: settings of the relay by name.
    """
    env = {f"TICKERTAPE_{name.upper()}": value for name, value in settings.items()}
    with ExitStack() as stack:
        if kind == "mounted":
            host = stack.enter_context(Host({"": {"nats_url": nats_url}}, metrics="", env=env))
            eventually(lambda: bool(host.get("/health")[1]["feeds"][""]["ready"]), "the feed is ready")
            # The metrics answer at any path below their mount point, also at ``/metrics`` below it.
            yield Deployment(kind, host, host.url(), host.url("/metrics"), nats_url)
            return
        options: list[str] = []
        context = None
        if kind == "tls":
            context, options = _certificate(folder)
            stack.enter_context(patch.dict(os.environ, SSL_CERT_FILE=str(folder / "ca.pem")))
        elif kind == "workers":
            options = ["--workers", "2"]
        elif kind in PROXIES:
            options = ["--trusted-proxies", TRUSTED]
        relay = stack.enter_context(Relay(nats_url, *options, **env))
        url = relay.url
        if kind in PROXIES:
            url = f"http://127.0.0.1:{stack.enter_context(proxy(kind, folder, (relay, relay)))}"
        yield Deployment(kind, relay, url, relay.ops_url, relay.nats_url, context)


def _certificate(folder: Path) -> tuple[ssl.SSLContext, list[str]]:
    """Write a certificate; return the context of clients that trust it, and the options of the relay."""
    leaf = _AUTHORITY.issue_cert("127.0.0.1")
    _AUTHORITY.cert_pem.write_to_path(folder / "ca.pem")
    leaf.private_key_pem.write_to_path(folder / "key.pem")
    leaf.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    context = ssl.create_default_context(cafile=folder / "ca.pem")
    return context, ["--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")]
