"""nats-servers of several sites or machines, from the unmodified files of ``deploy/nats``.

Invariants: each server takes its ports and folder from the environment, as in a deployment; there is no
second copy of a file; nothing is left running.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.servers.nats_server import START_TIMEOUT, STOP_TIMEOUT, find_binary, free_port
from tickertape.nats.credentials import Access

CONFIGS: Final = ROOT / "deploy" / "nats"
SECRET: Final = "tested-as-it-stands"
"""Password of all users."""

_PASSWORDS: Final = {
    f"NATS_{user}_PASSWORD": SECRET
    for user in ("OPERATOR", "RELAY", "MONITOR", "PUBLISHER", "SHIPPER_WEB1", "SHIPPER_EDGE1")
} | {"NATS_CLUSTER_PASSWORD": SECRET, "NATS_LEAF_EDGE1_PASSWORD": SECRET}


class Site:
    """One server.

    Attributes:
        port: port for clients.
        log: its log.
    """

    def __init__(self, config: str, folder: Path, port: int, environment: Mapping[str, str]) -> None:
        self.port = port
        self._folder = folder
        self._command = [str(find_binary()), "-c", str(CONFIGS / config)]
        self._environment = {
            **os.environ,
            **_PASSWORDS,
            "NATS_LISTEN": f"127.0.0.1:{port}",
            "NATS_MONITORING_LISTEN": f"127.0.0.1:{free_port()}",
            "NATS_STORE_DIR": f'"{folder / "store"}"',
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        """Log of the server."""
        return (self._folder / "log").read_text(errors="replace")

    def start(self) -> None:
        """Start the server; it may not respond yet."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )

    def until(self, text: str) -> None:
        """Wait until the server has logged a text.

        Raises:
            RuntimeError: it exited, or has not logged the text in time; the message contains the end of its
                log.
        """
        deadline = time.monotonic() + START_TIMEOUT
        while text not in self.log:
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no {text!r} in the log: {self.log[-2000:]}")
            time.sleep(0.02)

    def kill(self) -> None:
        """Kill the server, like the loss of its machine; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
            self._process = None


def access(user: str) -> Access:
    """Return the credentials of a user."""
    return Access(user=user, password=SECRET, inbox_prefix=f"_INBOX_{user.removeprefix('shipper-')}")


def options(user: str, folder: Path) -> list[str]:
    """Return the same as command-line options."""
    file = folder / "password"
    file.touch(0o600)
    file.write_text(SECRET)
    inbox = access(user).inbox_prefix
    return ["--nats-user", user, "--nats-password-file", str(file), "--nats-inbox-prefix", inbox]


@contextmanager
def _running(*sites: Site) -> Iterator[None]:
    with ExitStack() as stack:
        for site in sites:
            stack.callback(site.kill)
            site.start()
        for site in sites:
            site.until("Server is ready")
        yield


@contextmanager
def three(folder: Path) -> Iterator[list[Site]]:
    """Run the cluster of ``cluster.conf``, with JetStream ready on all three servers."""
    routes = [free_port() for _ in range(3)]
    known = ", ".join(f'"nats-route://route:{SECRET}@127.0.0.1:{port}"' for port in routes)
    sites = [
        Site(
            "cluster.conf",
            folder / f"nats-{number}",
            free_port(),
            {
                "NATS_SERVER_NAME": f"nats-{number}",
                "NATS_CLUSTER_LISTEN": f"127.0.0.1:{route}",
                "NATS_ROUTES": f"[{known}]",
            },
        )
        for number, route in enumerate(routes, 1)
    ]
    with _running(*sites):
        yield sites


@contextmanager
def hub_and_leaf(folder: Path) -> Iterator[tuple[Site, Site]]:
    """Run the servers of ``hub.conf`` and ``leaf.conf``, the second connected to the first."""
    leaf_port = free_port()
    hub = Site("hub.conf", folder / "hub", free_port(), {"NATS_LEAF_LISTEN": f"127.0.0.1:{leaf_port}"})
    address = f'"nats-leaf://leaf-edge1:{SECRET}@127.0.0.1:{leaf_port}"'
    leaf = Site("leaf.conf", folder / "leaf", free_port(), {"NATS_HUB_URL": address})
    with _running(hub, leaf):
        leaf.until("Leafnode connection created")
        yield hub, leaf


__all__ = ["SECRET", "Site", "access", "hub_and_leaf", "options", "three"]
