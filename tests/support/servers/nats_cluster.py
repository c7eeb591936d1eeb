"""Three real nats-servers as a cluster on loopback, and the JetStream state of its streams.

Invariants:

1. Ports, names and data folders stay the same across restarts.
2. Requests go to any server that responds; one that is down is skipped.
"""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.jetstream_api import StreamsError, request, server_version, stream_info
from tickertape.nats.streams import stream_configs

SIZE: Final = 3


class NatsCluster:
    """The servers by name.

    Attributes:
        servers: all of them, running or not.
    """

    def __init__(self, servers: dict[str, NatsServer]) -> None:
        self.servers = servers

    def __repr__(self) -> str:
        return f"<NatsCluster {self.servers}>"

    @property
    def url(self) -> str:
        """URLs of all servers."""
        return ",".join(server.url for server in self.servers.values())


@contextmanager
def cluster(folder: Path) -> Iterator[NatsCluster]:
    """Start a cluster of three servers, and stop it."""
    ports = [free_port() for _ in range(SIZE)]
    routes = ", ".join(f'"nats-route://127.0.0.1:{port}"' for port in ports)
    with ExitStack() as stack:
        servers = {}
        for number, port in enumerate(ports, 1):
            config = (
                f"server_name: n{number}\n"
                f"cluster {{ name: tickertape, listen: 127.0.0.1:{port}, routes: [{routes}] }}"
            )
            servers[f"n{number}"] = stack.enter_context(NatsServer(folder / f"n{number}", config=config))
        yield NatsCluster(servers)


async def provision(nc: Client, replicas: int) -> None:
    """Create the contract's streams with a number of replicas; wait until the cluster can."""
    async with asyncio.timeout(PATIENCE):
        for expected in stream_configs(Names(), server_version(nc)):
            while True:
                try:
                    answer = await request(
                        nc, f"STREAM.CREATE.{expected['name']}", {**expected, "num_replicas": replicas}
                    )
                except StreamsError:
                    continue  # no server responds before the first election
                # A server that has not discovered the other two reports that it cannot place the replicas.
                if "error" not in answer:
                    break
                await asyncio.sleep(0.1)


async def current(nc: Client) -> dict[str, Any]:
    """Wait until every stream has a leader and current replicas; return the leader of EVENTS."""
    names = [expected["name"] for expected in stream_configs(Names(), server_version(nc))]
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                found = {name: await stream_info(nc, name) for name in names}
            except (StreamsError, NatsError, OSError):
                await asyncio.sleep(0.1)
                continue
            if all(there is not None and _complete(there["cluster"]) for there in found.values()):
                events = found["EVENTS"]
                assert events is not None
                return events
            await asyncio.sleep(0.1)


def _complete(where: dict[str, Any]) -> bool:
    replicas = where.get("replicas") or []
    return (
        bool(where.get("leader"))
        and len(replicas) == SIZE - 1
        and all(copy["current"] and not copy.get("offline") for copy in replicas)
    )


async def asker(url: str) -> Client:
    """Connect for requests; the connection fails over when its server is killed."""
    return await connection.connect(url, name="asker")


__all__ = ["NatsCluster", "asker", "cluster", "current", "provision"]
