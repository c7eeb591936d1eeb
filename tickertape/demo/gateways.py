"""The gateways of the demo, as one process: real ports, TCP, HTTP and WebSocket, that fail and recover.

``python -m tickertape.demo.gateways --ports ports.json --moods moods.json``

Invariants:

1. A port listens unless its gateway's mood is REFUSING.
2. What a client does cannot end the process, and no client is kept for longer than ``HANG`` seconds.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Final

from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from tickertape.demo.failure_model import Fates
from tickertape.demo.fleet import FLEET, Kind, Member, Mood, write_moods
from tickertape.demo.ports import HOST
from tickertape.demo.restart_api import PORT_NAME, supervise

TICK: Final = 0.25
HANG: Final = 30.0
DROP_AFTER: Final = 0.3
SLOW_BY: Final = (0.4, 0.7)
"""Seconds; more than ``degraded_above`` in gateways.yaml, less than its ``timeout``."""

MAX_HEAD_BYTES: Final = 16 * 1024


class Door:
    """One port of a gateway; whoever comes in is treated as the mood says.

    Args:
        gateway: id, for answers.
        kind: what listens.
        port: on loopback.
        random: where chance comes from.
    """

    def __init__(self, gateway: str, kind: Kind, port: int, random: Random) -> None:
        self.mood = Mood.WELL
        self._gateway = gateway
        self._port = port
        self._random = random
        self._server: asyncio.Server | Server | None = None
        self._complained = False
        opens: dict[Kind, Callable[[], Awaitable[asyncio.Server | Server]]] = {
            Kind.TCP: lambda: asyncio.start_server(self._tcp, HOST, port),
            Kind.HTTP: lambda: asyncio.start_server(self._http, HOST, port, limit=MAX_HEAD_BYTES),
            Kind.WEBSOCKET: lambda: serve(self._stream, HOST, port, process_request=self._page),
        }
        self._open = opens[kind]

    async def follow(self, mood: Mood) -> None:
        """Be in this mood from now on: open or close as it says."""
        self.mood = mood
        if mood is Mood.REFUSING:
            if self._server is not None:
                self._server.close()
                self._server = None
        elif self._server is None:
            try:
                self._server = await self._open()
            except OSError as error:
                # Somebody took the port meanwhile: it is tried again at each tick, and the monitor sees it.
                if not self._complained:
                    print(f"{self._gateway}: port {self._port} cannot be opened: {error}", file=sys.stderr)
                self._complained = True

    async def _tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            if self.mood is Mood.DROPPING:
                await asyncio.sleep(DROP_AFTER)
            else:
                await _until_gone(reader)
        writer.close()

    async def _http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            async with asyncio.timeout(HANG):
                await reader.readuntil(b"\r\n\r\n")
            if self.mood is Mood.HANGING:
                await _until_gone(reader)
            elif self.mood is not Mood.DROPPING:
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
        if self.mood is Mood.SLOW:
            await asyncio.sleep(self._random.uniform(*SLOW_BY))
        status = 503 if self.mood is Mood.FAILING else 200
        return status, json.dumps({"gateway": self._gateway, "status": "ok" if status == 200 else "failing"})

    async def _page(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer /health beside the stream; None lets the WebSocket handshake go on."""
        if request.path != "/health":
            return None
        if self.mood is Mood.HANGING:
            await asyncio.sleep(HANG)
        status, body = await self._health()
        return connection.respond(status, body)

    async def _stream(self, connection: ServerConnection) -> None:
        price = 100.0
        with contextlib.suppress(ConnectionClosed):
            while self.mood not in (Mood.DROPPING, Mood.FAILING):
                price = max(1.0, price + self._random.uniform(-0.5, 0.5))
                await connection.send(json.dumps({"gateway": self._gateway, "last": round(price, 2)}))
                await asyncio.sleep(1.0)


class Fleet:
    """All gateways, following their fates.

    Args:
        members: the gateways.
        ports: by the names that ``Member.port_names`` gives.
        random: where chance comes from.
    """

    def __init__(self, members: tuple[Member, ...], ports: dict[str, int], random: Random) -> None:
        self.moods = {member.id: Mood.WELL for member in members}
        self._fates = Fates(members, random)
        # Chance of its own: what clients ask for must not change the fates of a seed.
        chance = Random(random.random())  # noqa: S311
        self._doors = {
            member.id: [
                Door(member.id, kind, ports[name], chance)
                for kind, name in zip(member.kinds, member.port_names(), strict=True)
            ]
            for member in members
        }

    def restart(self, member: str, now: float) -> bool:
        """Restart a gateway at ``now`` seconds after the start; False when there is none of that name."""
        print(f"{now:7.1f} s  {member} is to be restarted", flush=True)
        return self._fates.restart(member, now)

    async def advance(self, now: float) -> bool:
        """Do what is due at ``now`` seconds after the start; return True when a mood changed."""
        changes = self._fates.advance(now)
        for member, mood in changes:
            print(f"{now:7.1f} s  {member} is {mood}", flush=True)
            self.moods[member] = mood
        for member, doors in self._doors.items():
            for door in doors:
                await door.follow(self.moods[member])
        return bool(changes)


async def run(ports: dict[str, int], moods: Path, seed: int | None) -> None:
    """Serve for ever."""
    fleet = Fleet(FLEET, ports, Random(seed))  # noqa: S311 - a demo's dice, not a secret
    started = time.monotonic()
    await fleet.advance(0.0)
    write_moods(moods, fleet.moods)
    await supervise(ports[PORT_NAME], lambda member: fleet.restart(member, time.monotonic() - started))
    while True:
        await asyncio.sleep(TICK)
        if await fleet.advance(time.monotonic() - started):
            write_moods(moods, fleet.moods)


async def _until_gone(reader: asyncio.StreamReader) -> None:
    async with asyncio.timeout(HANG):
        while await reader.read(MAX_HEAD_BYTES):
            pass


def main() -> None:
    """Read the arguments, then serve until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="tickertape.demo.gateways")
    parser.add_argument("--ports", type=Path, required=True, help="JSON file with the ports")
    parser.add_argument("--moods", type=Path, required=True, help="JSON file that is kept up to date")
    parser.add_argument("--seed", type=int, help="same number, same fates")
    arguments = parser.parse_args()
    # A probe that hangs up in the middle of a handshake is daily business here.
    logging.getLogger("websockets").setLevel(logging.CRITICAL)
    ports = json.loads(arguments.ports.read_text())
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(ports, arguments.moods, arguments.seed))


if __name__ == "__main__":
    main()
