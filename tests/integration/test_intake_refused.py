"""The intake's consumer is gone and cannot be made again at once: it is tried until it can."""

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client

from contracts import consumer, streams
from contracts.streams import StreamsError
from relay.assembly import assemble
from relay.config import ServeSettings
from tests.feed_client import PATIENCE, jetstream, line, publish, run
from tests.nats_server import NatsServer


def test_a_consumer_that_was_refused_is_tried_again(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that cannot make the consumer the first time does not leave the relay deaf for good."""
    real = streams.request
    refusals = [StreamsError("JetStream did not answer", "wait", passing=True)]
    asked: list[str] = []

    async def refusing(nc: Client, verb: str, *rest: Any, **more: Any) -> dict[str, Any]:
        asked.append(verb)
        if refusals:
            raise refusals.pop()
        return await real(nc, verb, *rest, **more)

    async def body() -> None:
        settings = ServeSettings(nats_url=nats_server.url)
        parts = assemble(settings, nats_server.url, settings.origins(), 100, None)
        loaded = asyncio.Event()
        running = asyncio.create_task(parts.run(loaded))
        try:
            await loaded.wait()
            async with jetstream(nats_server.url) as js:
                monkeypatch.setattr(consumer, "request", refusing)
                for one in await js.consumers_info("EVENTS"):
                    await js.delete_consumer("EVENTS", one.name)
                seq = await publish(js, line("after"))
                async with asyncio.timeout(PATIENCE):
                    while parts.intake.hub.log.head < seq:
                        await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(body())
    assert refusals == []
    assert len(asked) >= 2
