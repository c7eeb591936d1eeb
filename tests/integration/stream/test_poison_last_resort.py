"""A message on which the parser itself fails, because of an injected fault, delays others only briefly."""

import asyncio
import sys

import pytest
from tickertape.contracts.events import Status
from tickertape.contracts.messages import Snapshot

from tests.integration.stream.test_rejected import filed, rejected_total
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run, status
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

FAULTY = """
import tickertape.nats.wire.operation_parser as client
from tickertape.nats.wire.protocol_parser import Message, ProtocolParser

class Faulty(ProtocolParser):
    def receive_data(self, data):
        for operation in super().receive_data(data):
            if type(operation) is Message and b"unparsable" in operation.data and WHERE:
                raise RuntimeError("a fault of the parser's own")
            yield operation

client.ProtocolParser = Faulty
from tickertape.cli.main import main
main()
"""
EVERYWHERE = "True"
DELIVERED = "operation.reply.startswith(b'$JS.ACK.')"


def faulty(nats_url: str, where: str) -> Relay:
    """Run a relay whose parser fails on messages that contain a word."""
    relay = Relay(nats_url)
    relay.program = [sys.executable, "-c", FAULTY.replace("WHERE", where)]
    return relay


@pytest.mark.parametrize(("where", "kept"), [(DELIVERED, True), (EVERYWHERE, False)])
def test_a_message_that_ends_the_connection_twice_is_passed_over(
    nats_server: NatsServer, where: str, kept: bool
) -> None:
    """A message that ends the connection twice is stored as rejected, with its body if possible; others
    arrive once.
    """

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            await publish(js, line("before"))
            assert await feed.texts(1) == ["before"]
            bad = line("unparsable")
            position = await publish(js, bad)
            for number in range(3):
                await publish(js, line(str(number)))
            assert await feed.texts(4) == ["before", "0", "1", "2"]
            ((subject, body, headers),) = await filed(js, 1)
            assert headers["Tickertape-Sequence"] == str(position)
            assert headers["Tickertape-Reason"].startswith("unreadable: ")
            if kept:
                assert (subject, body) == (f"rejected.{bad.subject}", bad.encode())
            else:
                assert (subject, body) == ("rejected.unreadable", b"")
                assert headers["Tickertape-Body"] == "unavailable"
        assert rejected_total(relay) == {"unreadable": 1}

    with faulty(nats_server.url, where) as relay:
        run(check(relay), timeout=4 * PATIENCE)
        # Ready is reported when events flow, not for a connection that only meets the message again.
        assert sum("receiving events again" in text for text in relay.log) == 1


def test_a_relay_starts_among_messages_that_it_cannot_parse(nats_server: NatsServer) -> None:
    """Unparsable messages among the newest states and in the stream's tail do not prevent startup."""

    async def fill() -> None:
        async with jetstream(nats_server.url) as js:
            await publish(js, status("a", Status.DEGRADED))
            await publish(js, status("unparsable"))
            await publish(js, status("b", Status.HEALTHY))
            async with asyncio.timeout(PATIENCE):
                while (await js.stream_info("LATEST")).state.messages < 3:
                    await asyncio.sleep(0.02)

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            states = [item.event for one in only(feed.messages, Snapshot) for item in one.events]
            assert [state["gateway_id"] for state in states] == ["a", "b"]
            await publish(js, line("after"))
            assert await feed.texts(1) == ["after"]

    with Relay(nats_server.url):
        run(fill())
    with faulty(nats_server.url, EVERYWHERE) as relay:
        run(check(relay), timeout=4 * PATIENCE)
        eventually(lambda: any("into memory" in text for text in relay.log), "the tail of the stream is read")
