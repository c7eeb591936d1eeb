"""Monitor, shipper, SDK and ``tail`` among messages that no client library accepts."""

import asyncio
from pathlib import Path

import orjson
from tickertape.producers.monitor.coordination.silences import read
from tickertape.producers.monitor.coordination.stored_status import read_stored_statuses
from tickertape.producers.monitor.coordination.stream_follower import Position, follow
from tickertape.producers.sdk.publisher import Publisher

from tests.integration.cli.test_tail_token import tail
from tests.integration.monitor import test_monitor
from tests.integration.shipper import test_shipper
from tests.support.clients.feed_client import PATIENCE, line, run
from tests.support.clients.poison import BLOCKS, SUBJECT_OF_EVENT, SUBJECTS, Message, RawPublisher, event
from tests.support.clients.shipped import Shipped, listening
from tests.support.programs.relay_process import Relay
from tests.support.programs.stop_signal import stopped_at_end
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli import monitor, ship
from tickertape.cli.monitor import MonitorSettings
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.streams import provision

COPIES = (b"\xfe", b"\xfd\xfe")
"""Two more subjects that a server lists as one, since JSON has the same replacement for both."""

LONG = b"x" * 3_900
"""A subject so long that a request with it exceeds a server's line limit."""

TOKENS = (*SUBJECTS, *COPIES, LONG)


def poison(under: bytes, data: bytes = b"{}") -> list[Message]:
    """Return messages on all bad subjects, each with a different header block."""
    return [
        Message(under + token, data, BLOCKS[number % len(BLOCKS)] if number % 2 else None)
        for number, token in enumerate(TOKENS)
    ]


async def settled(url: str, stream: str, count: int) -> None:
    """Wait until a stream has a number of messages, since a sourced stream lags."""
    client = await connection.connect(url, name="test")
    async with asyncio.timeout(PATIENCE):
        while (await client.jetstream().stream_info(stream)).state.messages < count:
            await asyncio.sleep(0.02)
    await connection.close(client)


def test_a_monitor_starts_and_publishes_among_poison(nats_server: NatsServer, tmp_path: Path) -> None:
    """A monitor works with poison in EVENTS, LATEST and WATCHDOG, before its start and while it runs."""
    port = free_port()
    settings = MonitorSettings(
        nats_url=nats_server.url, gateways=test_monitor.configured(tmp_path, port, None), id="m1"
    )
    strange = orjson.dumps({"gateway_id": "strange", "current_status": "?"})
    bad = [
        *poison(b"gateway.status.ctp.", strange),
        *poison(b"watchdog.silenced.ctp."),
        *poison(b"watchdog.armed.ctp."),
    ]

    async def main() -> None:
        async with test_monitor.listening(nats_server.url) as statuses:
            with RawPublisher(nats_server.url) as raw:
                raw.publish(*bad)
                await settled(nats_server.url, "LATEST", len(TOKENS))
                async with stopped_at_end(monitor.run(settings)):
                    async with test_monitor.serving(test_monitor.hold, port):
                        await statuses.until("tcp.main", "HEALTHY")
                        raw.publish(*bad)
                    await statuses.until("tcp.main", "HEALTHY", "UNHEALTHY")
                    raw.publish(*bad)
                    async with test_monitor.serving(test_monitor.hold, port):
                        await statuses.until("tcp.main", "UNHEALTHY", "RECOVERING", "HEALTHY")

    run(main(), timeout=4 * PATIENCE)


def test_a_monitor_receives_valid_messages_among_poison(nats_server: NatsServer) -> None:
    """Each valid message after a bad one is received, and the newest states are read whatever their
    headers.
    """
    names = Names()
    status = orjson.dumps(
        {
            "event_type": "gateway_status_change", "timestamp": "2025-06-24T10:30:45Z", "gateway_id": "a",
            "gateway_type": "ctp", "previous_status": "UNKNOWN", "current_status": "HEALTHY", "metadata": {},
        }
    )  # fmt: skip

    async def main() -> None:
        client = await connection.connect(nats_server.url, name="test")
        await provision(client, names)
        received: list[bytes] = []
        task = asyncio.create_task(
            follow(client, "EVENTS", ("gateway.>",), Position(), lambda one: received.append(one.data), print)
        )
        with RawPublisher(nats_server.url) as raw:
            for number, block in enumerate(BLOCKS):
                raw.publish(*poison(b"gateway.status.ctp."), Message(b"gateway.status.ctp.a", status, block))
                async with asyncio.timeout(PATIENCE):
                    while received.count(status) <= number:
                        await asyncio.sleep(0.01)
                found = await read_stored_statuses(client, names)
                assert found["gateway.status.ctp.a"].status == "HEALTHY"
                assert found["gateway.status.ctp.a"].sequence == (number + 1) * (len(TOKENS) + 1)
            raw.publish(*poison(b"watchdog.silenced.ctp."))
            assert await read(client, names) == {}
        assert client.stats["reconnects"] == 0
        task.cancel()
        await connection.close(client)

    run(main())


def test_a_shipper_starts_and_ships_among_poison(nats_server: NatsServer, tmp_path: Path) -> None:
    """A shipper works with poison in EVENTS and CHECKPOINTS, under its own host's checkpoints and among its
    lines.
    """
    settings = test_shipper.settings_of(nats_server.url, "", tmp_path, host="h")
    bad = [*poison(b"checkpoint.h."), *poison(b"log.info.")]

    async def main() -> None:
        async with listening(nats_server.url) as shipped:
            with RawPublisher(nats_server.url) as raw:
                raw.publish(*bad)
                await settled(nats_server.url, "CHECKPOINTS", len(TOKENS))
                for start in (0, 20, 40):
                    test_shipper.append(tmp_path / "app.log", test_shipper.numbered(start, start + 20))
                    async with stopped_at_end(ship.run(settings)):
                        await until_logged(shipped, start + 20)
                        raw.publish(*bad)

    async def until_logged(shipped: Shipped, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                await shipped.read()
                texts = [one["message"] for one in shipped.events if "message" in one]
                if len(texts) >= count:
                    assert texts == test_shipper.numbered(0, count)
                    return
                await asyncio.sleep(0.03)

    run(main(), timeout=4 * PATIENCE)


def test_a_publisher_receives_its_acknowledgements_among_poison(nats_server: NatsServer) -> None:
    """A publisher receives its acknowledgements although others publish anything to its inbox."""

    async def main() -> None:
        client = await connection.connect(nats_server.url, name="test")
        await provision(client, Names())
        async with Publisher(nats_server.url) as publisher:
            await publisher.publish(line("first"))
            own = await publisher.connected()
            inbox = publisher._in_flight._connection.inbox.encode()
            # Its requests are answered on another inbox.
            await own.request("$JS.API.STREAM.INFO.EVENTS", timeout=PATIENCE)
            mux = bytes(own._resp_sub_prefix or b"").removesuffix(b".")
            with RawPublisher(nats_server.url) as raw:
                for position in (inbox, mux):
                    for token in (b"1", b"2", *TOKENS[:-2]):
                        for block in (None, *BLOCKS):
                            raw.send(Message(position + b"." + token, b"\xff", block), reply=b"\xff.\x0b")
                for number in range(3):
                    ack = await publisher.publish(line(str(number)))
                    assert ack.stream == "EVENTS"
                await own.request("$JS.API.STREAM.INFO.EVENTS", timeout=PATIENCE)
            assert own.stats["reconnects"] == 0
        await connection.close(client)

    run(main())


def test_tail_shows_what_comes_after_poison(nats_server: NatsServer) -> None:
    """``tail`` prints the events after poison, and never anything that is not text."""
    with (
        Relay(nats_server.url) as relay,
        RawPublisher(nats_server.url) as raw,
        tail(relay.ws_url, "--mode", "complete", "--since", "earliest") as running,
    ):
        for number, block in enumerate(BLOCKS):
            raw.publish(*poison(b"log.info.", event(-1)), Message(SUBJECT_OF_EVENT, event(number), block))
        running.until(lambda: len(running.messages) >= len(BLOCKS), "all events are shown")
        assert running.messages == [str(number) for number in range(len(BLOCKS))]
        assert len({text for text in running.notes if "again" in text}) == 0
