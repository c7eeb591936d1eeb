"""Gateways of the demo in one process: real TCP, HTTP and WebSocket ports that fail and recover.

``python -m tickertape.demo.gateways --ports ports.json --conditions conditions.json``

Invariants:

1. A port listens unless the condition of its gateway is REFUSING.
2. No client can end the process, and no connection stays open for longer than ``HANG`` seconds without input.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tickertape.demo.failure_model import FailureModel
from tickertape.demo.fleet import FLEET, Condition, DemoGateway, Kind, write_conditions
from tickertape.demo.ports import HOST
from tickertape.demo.restart_api import PORT_NAME, start_restart_api
from tickertape.process.console import print_error, print_line

TICK: Final = 0.25
"""Seconds between two steps of the failure model."""

HANG: Final = 30.0
"""Seconds that a connection is kept open; longer than any probe timeout."""

DROP_AFTER: Final = 0.3
"""Seconds before a dropping gateway closes a connection; less than ``hold`` in gateways.yaml."""

SLOW_BY: Final = (0.4, 0.7)
"""Delay of a slow response in seconds: above ``degraded_above``, below ``timeout`` in gateways.yaml."""

MAX_HEAD_BYTES: Final = 16 * 1024


class ProbeServer:
    """Server on one port of a gateway, which behaves according to the gateway's condition.

    Args:
        gateway_id: id of the gateway, for responses.
        kind: protocol of the port.
        port: port on loopback to listen on.
        random: source of randomness.
    """

    def __init__(self, gateway_id: str, kind: Kind, port: int, random: Random) -> None:
        self.condition = Condition.HEALTHY
        self._gateway_id = gateway_id
        self._port = port
        self._random = random
        self._server: asyncio.Server | Server | None = None
        self._open_failed = False
        factories: dict[Kind, Callable[[], Awaitable[asyncio.Server | Server]]] = {
            Kind.TCP: lambda: asyncio.start_server(self._serve_tcp, HOST, port),
            Kind.HTTP: lambda: asyncio.start_server(self._serve_http, HOST, port, limit=MAX_HEAD_BYTES),
            Kind.WEBSOCKET: lambda: serve(self._stream, HOST, port, process_request=self._respond),
        }
        self._open = factories[kind]

    async def set_condition(self, condition: Condition) -> None:
        """Apply a condition, and open or close the port if necessary."""
        self.condition = condition
        if condition is Condition.REFUSING:
            if self._server is not None:
                self._server.close()
                self._server = None
        elif self._server is None:
            try:
                self._server = await self._open()
            except OSError as error:
                # Another program has taken the port. Each tick retries; until one succeeds, probes fail.
                if not self._open_failed:
                    print_error(f"{self._gateway_id}: cannot open port {self._port}: {error}")
                self._open_failed = True

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            if self.condition is Condition.DROPPING:
                await asyncio.sleep(DROP_AFTER)
            else:
                await _until_closed(reader)
        writer.close()

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(HANG):
                await reader.readuntil(b"\r\n\r\n")
            if self.condition is Condition.HANGING:
                await _until_closed(reader)
            elif self.condition is not Condition.DROPPING:
                status, body = await self._health()
                reason = "OK" if status == 200 else "Service Unavailable"
                head = (
                    f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                )
                writer.write((head + body).encode())
                await writer.drain()
        writer.close()

    async def _health(self) -> tuple[int, str]:
        if self.condition is Condition.SLOW:
            await asyncio.sleep(self._random.uniform(*SLOW_BY))
        status = 503 if self.condition is Condition.FAILING else 200
        body = {"gateway": self._gateway_id, "status": "ok" if status == 200 else "failing"}
        return status, json.dumps(body)

    async def _respond(self, connection: ServerConnection, request: Request) -> Response | None:
        """Respond to /health on the WebSocket port; return None to continue with the handshake."""
        if request.path != "/health":
            return None
        if self.condition is Condition.HANGING:
            await asyncio.sleep(HANG)
        status, body = await self._health()
        return connection.respond(status, body)

    async def _stream(self, connection: ServerConnection) -> None:
        price = 100.0
        with contextlib.suppress(ConnectionClosed):
            while self.condition not in (Condition.DROPPING, Condition.FAILING):
                price = max(1.0, price + self._random.uniform(-0.5, 0.5))
                await connection.send(json.dumps({"gateway": self._gateway_id, "last": round(price, 2)}))
                await asyncio.sleep(1.0)


class Fleet:
    """All gateways, driven by a failure model.

    Args:
        gateways: gateways to serve.
        ports: port numbers by name; see ``DemoGateway.port_names``.
        random: source of randomness.
    """

    def __init__(self, gateways: tuple[DemoGateway, ...], ports: dict[str, int], random: Random) -> None:
        self.conditions = {gateway.id: Condition.HEALTHY for gateway in gateways}
        self._failure_model = FailureModel(gateways, random)
        # A separate generator: the requests of clients must not change the failures that a seed produces.
        server_random = Random(random.random())  # noqa: S311
        self._servers = {
            gateway.id: [
                ProbeServer(gateway.id, kind, ports[name], server_random)
                for kind, name in zip(gateway.kinds, gateway.port_names(), strict=True)
            ]
            for gateway in gateways
        }

    def restart(self, gateway_id: str, now: float) -> bool:
        """Restart a gateway ``now`` seconds after the start; return False if no gateway has this id."""
        print_line(f"{now:7.1f} s  {gateway_id}: restart requested")
        return self._failure_model.restart(gateway_id, now)

    async def advance(self, now: float) -> bool:
        """Apply the changes due ``now`` seconds after the start; return whether any condition changed."""
        changes = self._failure_model.advance(now)
        for gateway_id, condition in changes:
            print_line(f"{now:7.1f} s  {gateway_id} is {condition}")
            self.conditions[gateway_id] = condition
        for gateway_id, servers in self._servers.items():
            for server in servers:
                await server.set_condition(self.conditions[gateway_id])
        return bool(changes)


async def run(ports: dict[str, int], conditions: Path, seed: int | None) -> None:
    """Serve the gateways until cancelled."""
    fleet = Fleet(FLEET, ports, Random(seed))  # noqa: S311 - not used for secrets
    started = time.monotonic()
    await fleet.advance(0.0)
    write_conditions(conditions, fleet.conditions)
    await start_restart_api(ports[PORT_NAME], lambda name: fleet.restart(name, time.monotonic() - started))
    while True:
        await asyncio.sleep(TICK)
        if await fleet.advance(time.monotonic() - started):
            write_conditions(conditions, fleet.conditions)


async def _until_closed(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(HANG):
        while await reader.read(MAX_HEAD_BYTES):
            pass


def main() -> None:
    """Read the arguments, then serve until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="tickertape.demo.gateways")
    parser.add_argument("--ports", type=Path, required=True, help="JSON file of port numbers by port name")
    parser.add_argument(
        "--conditions", type=Path, required=True, help="JSON file to write the gateways' conditions to"
    )
    parser.add_argument("--seed", type=int, help="seed of the failures; random without it")
    arguments = parser.parse_args()
    # Probes close connections in the middle of a handshake, which websockets would log as errors.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    ports = json.loads(arguments.ports.read_text(encoding="utf-8"))
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(ports, arguments.conditions, arguments.seed))


if __name__ == "__main__":
    main()
