"""A relay, or a host with a feed, and a NATS server, for tests that are not written in Python.

Each command is a line of JSON, and so is its response:
``{"id": 1, "do": "lines", "count": 3}`` is answered with ``{"id": 1, "answer": ...}``, or with ``{"id": 1,
"error": ...}``. Commands run concurrently. Everything that was started stops when standard input ends, in
whatever state it is.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import nats
import orjson
from nats.js import JetStreamContext
from tickertape.contracts.events import Status

from tests.support.clients.feed_client import line, publish, status
from tests.support.clients.forge import SECRET, claims, token
from tests.support.patience import PATIENCE
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

IN_FLIGHT: Final = 500
"""Messages published before their acknowledgements are awaited."""

JWT_ENV: Final = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": SECRET.decode()}


class Desk:
    """Command handler; ``do`` names a method, and the other fields are its arguments."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._relay: Relay | Host | None = None
        self._js: JetStreamContext | None = None

    async def relay(self, options: list[str], auth: bool = False) -> dict[str, str]:
        """Start a relay on its own port, replacing the current one."""
        await self.end()
        env = JWT_ENV if auth else {}
        self._relay = Relay(self._server.url, *options, *(("--auth", "jwt") if auth else ()), **env)
        await self.start()
        return {"url": self._relay.ws_url}

    async def host(self, options: dict[str, Any]) -> dict[str, str]:
        """Start a FastAPI application with a feed at ``/feed``, replacing the current relay."""
        await self.end()
        self._relay = Host({"/feed": {"nats_url": self._server.url, **options}})
        await self.start()
        await asyncio.to_thread(self._relay.until_ready)
        return {"url": self._relay.ws(), "health": self._relay.url("/health")}

    async def start(self) -> None:
        """Restart the relay or the host."""
        await asyncio.to_thread(self._expect_relay().start)

    async def kill(self) -> None:
        """Kill the relay or the host (SIGKILL)."""
        await asyncio.to_thread(self._expect_relay().kill)

    async def stop(self) -> int:
        """Stop the relay or the host gracefully; return its exit code."""
        return await asyncio.to_thread(self._expect_relay().stop)

    async def nats_stop(self) -> None:
        """Stop NATS."""
        await asyncio.to_thread(self._server.stop)

    async def nats_start(self) -> None:
        """Restart NATS."""
        await asyncio.to_thread(self._server.start)

    async def lines(
        self,
        count: int,
        text: str = "line",
        level: str = "INFO",
        source: str = "desk",
        pause: float = 0.0,
    ) -> list[int]:
        """Publish log lines, ``<text> 0`` and so on, with a pause in seconds after each batch.

        Returns:
            the sequences of the first and the last line.
        """
        js = await self._jetstream()
        acks: list[int] = []
        for begin in range(0, count, IN_FLIGHT):
            batch = [
                await js.publish_async(event.subject, event.encode())
                for n in range(begin, min(count, begin + IN_FLIGHT))
                for event in (line(f"{text} {n}", level, source),)
            ]
            acks += [(await ack).seq for ack in batch]
            await asyncio.sleep(pause)
        return [acks[0], acks[-1]]

    async def status(self, gateway: str, current: str) -> int:
        """Publish a gateway's status; return its sequence."""
        return await publish(await self._jetstream(), status(gateway, Status(current)))

    async def event(self, subject: str, body: dict[str, Any]) -> int:
        """Publish any event; return its sequence."""
        return (await (await self._jetstream()).publish(subject, orjson.dumps(body))).seq

    async def token(self, life: float = 3600.0, subjects: list[str] | None = None, sub: str = "alice") -> str:
        """Create a token that expires after a number of seconds."""
        grant = {"subjects": subjects or [">"], "rate": 0}
        return token(
            "HS256", claims(sub=sub, exp=time.time() + life, jti=str(time.time_ns()), tickertape=grant)
        )

    async def end(self) -> None:
        """Stop the current relay or host, if there is one."""
        if self._relay is not None:
            await asyncio.to_thread(self._relay.close)
            self._relay = None

    async def _jetstream(self) -> JetStreamContext:
        if self._js is None:
            nc = await nats.connect(
                self._server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_expected
            )
            self._js = nc.jetstream(timeout=PATIENCE, publish_async_max_pending=2 * IN_FLIGHT)
        return self._js

    def _expect_relay(self) -> Relay | Host:
        if self._relay is None:
            raise RuntimeError("no relay yet; say 'relay' or 'host' first")
        return self._relay


async def _expected(error: Exception) -> None:
    """Ignore nats-py's errors: NATS is stopped here on purpose."""


async def grant(desk: Desk, wish: dict[str, Any]) -> None:
    """Run one command, and send its response."""
    number, name = wish.pop("id"), wish.pop("do")
    try:
        do: Callable[..., Awaitable[Any]] = getattr(desk, name)
        output = {"id": number, "answer": await do(**wish)}
    except Exception as error:  # the error fails the test that sent the command
        output = {"id": number, "error": f"{type(error).__name__}: {error}"}
    print(orjson.dumps(output).decode(), flush=True)


async def main() -> None:
    """Run commands until standard input ends."""
    with tempfile.TemporaryDirectory() as folder, NatsServer(Path(folder)) as server:
        desk = Desk(server)
        async with asyncio.TaskGroup() as wishes:
            while text := await asyncio.to_thread(sys.stdin.readline):
                wishes.create_task(grant(desk, orjson.loads(text)))
        await desk.end()


if __name__ == "__main__":
    asyncio.run(main())
