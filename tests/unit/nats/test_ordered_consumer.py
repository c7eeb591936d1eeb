"""The ordered consumer on messages as nats-server writes them, without a server."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tickertape.nats.ordered_consumer import Delivery, OrderedConsumer
from tickertape.nats.wire.protocol_parser import Message


class Stage:
    """A consumer that is fed by hand."""

    def __init__(self) -> None:
        self.got: list[Delivery] = []
        self.lost: list[str] = []
        self.answered: list[str] = []
        client: Any = SimpleNamespace(publish=self._publish)
        self.consumer = OrderedConsumer(client, "EVENTS", self.got.append, self.lost.append)

    async def _publish(self, subject: str) -> None:
        self.answered.append(subject)

    async def message(self, seq: int, own: int, headers: dict[str, str] | None = None) -> None:
        """Return a message of the stream, with its stream sequence and the consumer's sequence."""
        reply = f"$JS.ACK.EVENTS.abc.1.{seq}.{own}.1700000000500000000.7"
        await self._feed(reply, headers)

    async def control(self, headers: dict[str, str], reply: str = "") -> None:
        """Return a control message of the server."""
        await self._feed(reply, headers)

    async def _feed(self, reply: str, headers: dict[str, str] | None) -> None:
        block = None if headers is None else encode_headers(headers)
        rest = self.consumer._receive(Message(1, b"log.info.x", reply.encode(), block, b"{}"))
        if rest is not None:
            await rest


def encode_headers(headers: dict[str, str]) -> bytes:
    """Return the block of headers, with status and description in its first line."""
    first = f" {headers['Status']} {headers.get('Description', '')}".rstrip() if "Status" in headers else ""
    rest = "".join(
        f"{name}: {value}\r\n" for name, value in headers.items() if name not in ("Status", "Description")
    )
    return f"NATS/1.0{first}\r\n{rest}\r\n".encode()


def test_messages_have_their_sequence_and_time() -> None:
    """Sequence, time and pending count are parsed from the reply subject."""

    async def check() -> None:
        stage = Stage()
        await stage.message(41, 1)
        assert stage.got == [Delivery(41, "log.info.x", b"{}", 1_700_000_000_500_000_000, 7, None)]

    asyncio.run(check())


def test_a_domain_in_the_reply_moves_its_tokens() -> None:
    """The longer form of the reply subject, with a domain, is parsed as well."""

    async def check() -> None:
        stage = Stage()
        await stage._feed("$JS.ACK.hub.ACC.EVENTS.abc.1.41.1.1700000000500000000.7.random", None)
        assert [delivery.seq for delivery in stage.got] == [41]

    asyncio.run(check())


def test_a_missing_message_ends_the_consumer_once() -> None:
    """Messages after a missing one are not delivered, and the loss is reported once."""

    async def check() -> None:
        stage = Stage()
        await stage.message(41, 1)
        await stage.message(43, 3)
        await stage.message(44, 4)
        assert [delivery.seq for delivery in stage.got] == [41]
        assert len(stage.lost) == 1
        assert "message 2 is missing" in stage.lost[0]

    asyncio.run(check())


@pytest.mark.parametrize(("last", "lost"), [("1", 0), ("2", 1)])
def test_a_heartbeat_reveals_missing_messages(last: str, lost: int) -> None:
    """The server's count in a heartbeat reveals messages that never arrived."""

    async def check() -> None:
        stage = Stage()
        await stage.message(41, 1)
        await stage.control({"Status": "100", "Nats-Last-Consumer": last})
        assert len(stage.lost) == lost

    asyncio.run(check())


def test_flow_control_is_answered_and_a_forged_one_is_data() -> None:
    """Only messages that do not come from the stream control the consumer."""

    async def check() -> None:
        stage = Stage()
        await stage.control({"Status": "100", "Description": "FlowControl Request"}, "$JS.FC.EVENTS.abc")
        await stage.control({"Status": "100", "Nats-Consumer-Stalled": "$JS.FC.stalled"})
        assert stage.answered == ["$JS.FC.EVENTS.abc", "$JS.FC.stalled"]
        await stage.message(41, 1, {"Status": "100", "Description": "Idle Heartbeat"})
        assert [delivery.seq for delivery in stage.got] == [41]
        assert stage.lost == []

    asyncio.run(check())


def test_the_server_can_end_it() -> None:
    """A deleted consumer is reported as lost, not as idle."""

    async def check() -> None:
        stage = Stage()
        await stage.control({"Status": "409", "Description": "Consumer Deleted"})
        assert stage.lost == ["the server stopped the consumer: Consumer Deleted"]

    asyncio.run(check())
