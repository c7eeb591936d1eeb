"""The ingest's consumer is lost and cannot be recreated immediately: creation is retried."""

import asyncio
from typing import Any

import pytest
from nats.aio.client import Client
from tickertape.relay.ingest import stream_reader
from tickertape.relay.relay import assemble
from tickertape.relay.settings import ServeSettings

from tests.support.clients.feed_client import PATIENCE, connection, jetstream, line, publish, run, status
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import ordered_consumer as consumer
from tickertape.nats import streams
from tickertape.nats.streams import StreamsError, provision


def test_a_consumer_that_was_rejected_is_tried_again(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cluster that cannot create the consumer at first does not leave the relay without events."""
    real = streams.request
    refusals = [StreamsError("JetStream did not reply", "wait", transient=True)]
    requested: list[str] = []

    async def refusing(nc: Client, verb: str, *rest: Any, **more: Any) -> dict[str, Any]:
        requested.append(verb)
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
                    while parts.ingest.hub.log.head < seq:
                        await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(body())
    assert refusals == []
    assert len(requested) >= 2


def test_states_of_another_stream_are_loaded_though_the_first_try_fails(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """States of a recreated EVENTS are loaded as soon as LATEST can be read."""
    real = stream_reader.read
    refusals = [StreamsError("JetStream did not reply", "wait", transient=True)]

    def refusing(*given: Any, **more: Any) -> Any:
        if refusals:
            raise refusals.pop()
        return real(*given, **more)

    async def body() -> None:
        settings = ServeSettings(nats_url=nats_server.url)
        parts = assemble(settings, nats_server.url, settings.origins(), 100, None)
        loaded = asyncio.Event()
        running = asyncio.create_task(parts.run(loaded))
        try:
            await loaded.wait()
            hub, before = parts.hub, parts.hub.epoch
            async with connection(nats_server.url) as nc, jetstream(nats_server.url) as js:
                await publish(js, status("old"))
                monkeypatch.setattr(stream_reader, "read", refusing)
                for stream in ("LATEST", "EVENTS"):
                    await js.delete_stream(stream)
                await provision(nc, Names())
                await publish(js, status("new"))
                async with asyncio.timeout(PATIENCE):
                    while hub.epoch == before or refusals or len(hub.snapshot) != 1:
                        await asyncio.sleep(0.02)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    run(body())
