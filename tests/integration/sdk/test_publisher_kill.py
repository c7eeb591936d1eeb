"""Publishers whose server is killed repeatedly: each acknowledged event is in the stream exactly once."""

import asyncio
import random
import time
from concurrent.futures import Future

import orjson
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.publish_ack import Ack
from tickertape.producers.sdk.publisher import FOREVER, AckFuture, Publisher
from tickertape.producers.sdk.sync_publisher import SyncPublisher

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection, streams

KILLS = 4
BETWEEN = 0.4


def payload(number: int) -> bytes:
    return SystemLog(level="INFO", message=str(number), source="test").encode()


async def provision(url: str) -> None:
    client = await connection.connect(url, name="test")
    await streams.provision(client, Names())
    await connection.close(client)


async def messages(url: str) -> dict[int, str]:
    """Return the messages in the stream by sequence."""
    client = await connection.connect(url, name="test")
    try:
        manager = client.jetstream()
        last = (await manager.stream_info("EVENTS")).state.last_seq
        found: dict[int, str] = {}
        subscription = await manager.subscribe("log.>", ordered_consumer=True)
        while len(found) < last:
            message = await subscription.next_msg(timeout=PATIENCE)
            found[message.metadata.sequence.stream] = orjson.loads(message.data)["message"]
        return found
    finally:
        await connection.close(client)


def check(found: dict[int, str], acks: dict[str, Ack]) -> None:
    """Check that each acknowledged event is stored at its sequence, and that none is stored twice."""
    for text, ack in acks.items():
        assert found[ack.seq] == text
    assert len(set(found.values())) == len(found)
    assert set(found.values()) == set(acks)


def test_acknowledged_events_survive_kills(nats_server: NatsServer) -> None:
    """Events of one caller at full speed survive several kills of the server."""
    choose = random.SystemRandom()

    async def main() -> None:
        await provision(nats_server.url)
        acks: dict[str, Ack] = {}
        running = True

        async def kill() -> None:
            nonlocal running
            for _ in range(KILLS):
                await asyncio.sleep(BETWEEN * (0.5 + choose.random()))
                await asyncio.to_thread(nats_server.kill)
                await asyncio.sleep(0.2 * choose.random())
                await asyncio.to_thread(nats_server.start)
            running = False

        async with (
            asyncio.timeout(2 * PATIENCE),
            Publisher(nats_server.url, deadline=FOREVER, ack_timeout=1.0, max_pending=500) as publisher,
        ):
            killing = asyncio.create_task(kill())
            futures: dict[str, AckFuture] = {}
            while running:
                text = len(futures)
                futures[str(text)] = await publisher.submit("log.info.test", payload(text))
                if text % 50 == 0:
                    await asyncio.sleep(0.005)
            await killing
            await publisher.flush()
            acks = {text: future.result() for text, future in futures.items()}
        assert len(acks) > 500
        check(await messages(nats_server.url), acks)

    asyncio.run(main())


def test_threads_survive_kills(nats_server: NatsServer) -> None:
    """Events submitted from a program without an event loop survive several kills of the server."""
    asyncio.run(provision(nats_server.url))
    futures: dict[str, Future[Ack]] = {}
    with SyncPublisher(nats_server.url, deadline=FOREVER, ack_timeout=1.0, max_pending=200) as publisher:
        for number in range(KILLS * 300):
            event = SystemLog(level="INFO", message=str(number), source="test")
            futures[str(number)] = publisher.submit(event)
            if number % 300 == 150:
                nats_server.kill()
                time.sleep(0.05)
                nats_server.start()
        publisher.flush()
    check(
        asyncio.run(messages(nats_server.url)), {text: future.result(0) for text, future in futures.items()}
    )
