"""A transport that writes in another way needs an encoding of its own, and nothing of the core."""

from collections.abc import Sequence
from typing import Any

import orjson
from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, Outgoing, encode_message
from tickertape.contracts.messages import relay_message
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import Stage


class Lines:
    """Newline-delimited JSON."""

    def encode(self, messages: Sequence[Outgoing]) -> bytes:
        """One line for each message."""
        return b"".join(encode_message(message).join() + b"\n" for message in messages)


class Packed:
    """Objects, as a binary format would pack them."""

    def encode(self, messages: Sequence[Outgoing]) -> list[Any]:
        """What would be packed."""
        found: list[Any] = []
        for message in messages:
            if isinstance(message, EncodedEvents | EncodedSnapshot):
                found += [orjson.loads(event) for event in message.events]
            else:
                found.append(message.model_dump(by_alias=True, exclude_unset=True))
        return found


class Link:
    """Keeps what it is given.

    Args:
        encoding: how it is written to.
    """

    def __init__(self, encoding: Any) -> None:
        self.encoding = encoding
        self.sent: list[Any] = []

    def send(self, data: Any) -> None:
        """Keep it."""
        self.sent.append(data)

    def admit(self, grant: Grant) -> bool:
        """Let it in."""
        return True

    def close(self, code: int, reason: str) -> None:
        """Nothing is left to do."""

    def abort(self) -> None:
        """Nothing is left to do."""


def test_an_encoding_of_lines_serves_a_feed_beside_frames() -> None:
    """The same messages, made once for all links of the encoding."""
    stage = Stage()
    browser, _ = stage.open()
    encoding = Lines()
    links = [Link(encoding) for _ in range(2)]
    for link in links:
        stage.hub.sessions.open(link, Request(), stage.now)
    stage.status(1)
    stage.log(2)
    stage.settle()
    stage.tick(60.0)
    said = [relay_message.validate_json(line) for data in links[0].sent for line in data.splitlines()]
    kinds = [message.type for message in said]
    assert kinds == browser.kinds() == ["welcome", "subscribed", "snapshot", "events", "heartbeat"]
    assert links[0].sent[3] is links[1].sent[3], "events are encoded once"


def test_an_encoding_of_objects_sees_models_and_events() -> None:
    """What is no JSON at all can be made of what the core hands out."""
    stage = Stage()
    link = Link(Packed())
    stage.hub.sessions.open(link, Request(), stage.now)
    stage.log(1)
    stage.settle()
    *_, last = link.sent
    assert [event["seq"] for event in last] == [1]
    assert link.sent[0][0]["type"] == "welcome"
