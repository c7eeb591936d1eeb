"""The log shipper with real files and a real server: rotation, restarts, outages, standard input."""

import asyncio
import contextlib
import gc
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError

from contracts import connect, streams
from contracts.streams import Names
from producers.shipper.ship import ShipSettings, run
from tests.nats_server import NatsServer

PATIENCE = 60.0


@pytest.fixture
def nats_server(nats_server: NatsServer) -> Iterator[NatsServer]:
    """A server to be killed: nats-py leaves a socket unclosed when a reconnection breaks off half-way."""
    yield nats_server
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


class Shipped:
    """Log events in the order of the stream."""

    def __init__(self, client: Client, prefix: str) -> None:
        self._client = client
        self._names = Names(prefix)
        self._next = 1
        self.events: list[dict[str, Any]] = []

    async def read(self) -> None:
        stream = self._names.stream("EVENTS")
        while True:
            request = orjson.dumps({"seq": self._next, "next_by_subj": self._names.subject("log.>")})
            reply = await self._client.request(f"$JS.API.DIRECT.GET.{stream}", request, timeout=5)
            assert reply.headers is not None
            if reply.headers.get("Status"):
                return
            self._next = int(reply.headers["Nats-Sequence"]) + 1
            self.events.append(orjson.loads(reply.data))

    @property
    def messages(self) -> list[str]:
        return [event["message"] for event in self.events]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.events) < count:
                await asyncio.sleep(0.03)
                with contextlib.suppress(NatsError, TimeoutError):  # the server may be away
                    await self.read()


@contextlib.asynccontextmanager
async def listening(url: str, prefix: str = "") -> AsyncIterator[Shipped]:
    client = await connect.connect(url, name="test")
    await streams.provision(client, Names(prefix))
    try:
        yield Shipped(client, prefix)
    finally:
        await connect.close(client)


@contextlib.asynccontextmanager
async def shipping(settings: ShipSettings) -> AsyncIterator[None]:
    """A shipper that is stopped by SIGTERM, and then ends with 0."""
    task = asyncio.create_task(run(settings))
    try:
        await asyncio.sleep(0)  # the handler must be there before the signal is
        yield
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            assert await task == 0
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def settings_of(url: str, prefix: str, folder: Path, *paths: str, **more: Any) -> ShipSettings:
    names = [str(folder / path) for path in paths or ("app.log",)]
    return ShipSettings(nats_url=url, subject_prefix=prefix, paths=names, state_dir=folder / "state", **more)


def append(path: Path, lines: list[str]) -> None:
    with path.open("a") as file:
        file.write("".join(f"{line}\n" for line in lines))


def numbered(first: int, last: int) -> list[str]:
    return [f"line {number}" for number in range(first, last)]


def test_a_rotation_and_a_restart_lose_and_repeat_nothing(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """Every line is in the stream once and in order, through rotations with and without a shipper."""
    log = tmp_path / "app.log"
    settings = settings_of(nats_url, nats_prefix, tmp_path)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            append(log, numbered(0, 500))
            async with shipping(settings):
                await shipped.until(500)
                append(log, numbered(500, 900))
                log.rename(tmp_path / "app.log.1")
                append(log, numbered(900, 1000))
                await shipped.until(1000)
            append(log, numbered(1000, 1100))
            log.rename(tmp_path / "app.log.2")
            append(log, numbered(1100, 1200))
            async with shipping(settings):
                await shipped.until(1200)
            async with shipping(settings):
                append(log, numbered(1200, 1201))
                await shipped.until(1201)
            await shipped.read()
            assert shipped.messages == numbered(0, 1201)
            assert {event["source"] for event in shipped.events} == {"app"}

    asyncio.run(main())


def test_a_crash_repeats_nothing(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """A killed shipper reads again from its last checkpoint; what it had sent is not in the stream twice."""
    log = tmp_path / "app.log"
    append(log, numbered(0, 3000))
    code = (
        "import asyncio, sys; from producers.shipper.ship import ShipSettings, run; "
        "sys.exit(asyncio.run(run(ShipSettings.model_validate_json(sys.argv[1]))))"
    )
    settings = settings_of(nats_url, nats_prefix, tmp_path)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, settings.model_dump_json(), stderr=asyncio.subprocess.DEVNULL
            )
            try:
                await shipped.until(200)
            finally:
                process.kill()
                await process.wait()
            assert await run(settings.model_copy(update={"once": True})) == 0
            await shipped.until(3000)
            await shipped.read()
            assert sorted(shipped.messages) == sorted(numbered(0, 3000))

    asyncio.run(main())


def test_nats_away_stops_reading_and_loses_nothing(nats_server: NatsServer, tmp_path: Path) -> None:
    """Lines written while NATS is away arrive when it is back, once and whole."""
    log = tmp_path / "app.log"

    async def main() -> None:
        async with listening(nats_server.url) as shipped:
            append(log, numbered(0, 100))
            async with shipping(settings_of(nats_server.url, "", tmp_path)):
                await shipped.until(100)
                await asyncio.to_thread(nats_server.kill)
                append(log, numbered(100, 6000))
                await asyncio.sleep(0.5)
                await asyncio.to_thread(nats_server.start)
                await shipped.until(6000)
            await shipped.read()
            assert shipped.messages == numbered(0, 6000)

    asyncio.run(main())


def test_once_ships_what_is_there_and_ends(
    nats_url: str, nats_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Globs, JSON lines, a level and a source of the line's own; the second run finds nothing new."""
    append(tmp_path / "a.log", ["plain", '{"level":"error","msg":"json","logger":"db","n":1}', "", "DEBUG x"])
    (tmp_path / "b.log").write_bytes(b"WARN \x1b[31mred\xff")
    settings = settings_of(nats_url, nats_prefix, tmp_path, "*.log", once=True, level="info")

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(3)
            found = sorted((event["level"], event["source"], event["message"]) for event in shipped.events)
            assert found == [("ERROR", "db", "json"), ("INFO", "a", "plain"), ("WARN", "b", "WARN red\ufffd")]
            assert await run(settings) == 0
            await shipped.read()
            assert len(shipped.events) == 3

    asyncio.run(main())
    told = [line for line in capsys.readouterr().err.splitlines() if "acknowledged" in line]
    assert told == [
        "tickertape ship: 3 lines acknowledged, 1 below INFO",
        "tickertape ship: 0 lines acknowledged, 0 below INFO",
    ]


def test_standard_input_is_shipped_to_its_end(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe's lines arrive under the given source, the last one without its break, too."""
    reading, writing = os.pipe()
    os.write(writing, b"one\ntwo\nthree")
    os.close(writing)
    settings = ShipSettings(
        nats_url=nats_url, subject_prefix=nats_prefix, paths=["-"], source="piped", state_dir=tmp_path
    )

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(3)
            assert shipped.messages == ["one", "two", "three"]
            assert {event["source"] for event in shipped.events} == {"piped"}

    with os.fdopen(reading) as piped:
        monkeypatch.setattr(sys, "stdin", piped)
        asyncio.run(main())


def test_it_stops_while_it_waits_for_nats(nats_server: NatsServer, tmp_path: Path) -> None:
    """SIGTERM ends a shipper that never reached NATS, and its state is as it was."""
    nats_server.stop()
    append(tmp_path / "app.log", ["one"])

    async def main() -> None:
        async with shipping(settings_of(nats_server.url, "", tmp_path)):
            await asyncio.sleep(0.3)
        await asyncio.to_thread(nats_server.start)
        async with listening(nats_server.url) as shipped:
            assert await run(settings_of(nats_server.url, "", tmp_path, once=True)) == 0
            await shipped.until(1)
            assert shipped.messages == ["one"]

    asyncio.run(main())


def test_files_and_standard_input_do_not_mix(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong use is one line and exit code 2."""
    settings = ShipSettings(paths=["-", "a.log"], state_dir=tmp_path)
    assert asyncio.run(run(settings)) == 2
    assert "'-' stands alone" in capsys.readouterr().err
