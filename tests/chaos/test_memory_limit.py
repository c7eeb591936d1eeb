"""A relay with its defaults in a small container: it is not killed, however many events there are."""

import asyncio
import os
from pathlib import Path
from typing import Final

from tests.support.clients.feed_client import follow, run
from tests.support.isolation import memory_group
from tests.support.programs.relay_process import Relay, command
from tickertape import Publisher, SystemLog

LIMIT: Final = 256 * 1024 * 1024
EVENTS: Final = 150_000 if os.environ.get("CHAOS") == "full" else 30_000
"""More than fit into an event log of 32 MiB; in full, more than twice as many as fit into one of 128 MiB."""

SIZE: Final = 2_000
REPLAYS: Final = 10
"""Clients that read the whole stream together."""

MINIMUM: Final = 2_000
"""Events after which a client has read from the stream, and not only from memory."""


def test_a_relay_lives_within_its_memory_limit(tmp_path: Path) -> None:
    """Relay and embedded server share 256 MiB, while more is published than its log holds, and read again."""

    async def publish(url: str) -> None:
        async with Publisher(url, name="load") as publisher:
            for start in range(0, EVENTS, 1_000):
                numbers = range(start, start + 1_000)
                events = (
                    SystemLog(level="INFO", source="load", message=f"{n} {'x' * SIZE}") for n in numbers
                )
                await asyncio.gather(*map(publisher.publish, events))

    async def replay(url: str) -> None:
        async with follow(f"{url}?mode=complete&since=1h") as client:
            assert len(await client.events(MINIMUM)) >= MINIMUM

    async def replay_all(url: str) -> None:
        await asyncio.gather(*(replay(url) for _ in range(REPLAYS)))

    with memory_group(LIMIT) as prefix:
        relay = Relay(None, "--data-dir", str(tmp_path), "--nats-port", "0")
        relay.program = [*prefix, *command()]
        with relay:
            asyncio.run(publish(relay.nats_url))
            run(replay_all(relay.ws_url), 600)
            assert not any("exited" in line for line in relay.log)
            assert any("memory limit of 256 MiB: 32 MiB for events" in line for line in relay.log)
            assert relay.stop() == 0
