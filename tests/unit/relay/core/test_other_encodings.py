"""Support for other wire formats: a transport needs only an encoding of its own, and no change of the
core.
"""

from collections.abc import Sequence
from typing import Any

import orjson
from tickertape.contracts.encode import EncodedEvents, EncodedSnapshot, Outgoing, encode_message
from tickertape.contracts.messages import relay_message
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.session.subscription import Request

from tests.support.clients.fake_link import Stage


class Lines:
    """Encoding as newline-delimited JSON."""

    def encode(self, messages: Sequence[Outgoing]) -> bytes:
        """Encode each message as a line."""
        return b"".join(encode_message(message).join() + b"\n" for message in messages)


class Packed:
    """Encoding as objects, as a binary format would need them."""

    def encode(self, messages: Sequence[Outgoing]) -> list[Any]:
        """Return the objects of messages."""
        found: list[Any] = []
        for message in messages:
            if isinstance(message, EncodedEvents | EncodedSnapshot):
                found += [orjson.loads(event) for event in message.events]
            else:
                found.append(message.model_dump(by_alias=True, exclude_unset=True))
        return found


class Link:
    """Link that keeps the data it is sent.

    Args:
        encoding: how messages are encoded for it.
    """

    def __init__(self, encoding: Any) -> None:
        self.encoding = encoding
        self.sent: list[Any] = []

    def send(self, data: Any) -> None:
        """Keep the data."""
        self.sent.append(data)

    def admit(self, grant: Grant) -> bool:
        """Admit every session."""
        return True

    def close(self, code: int, reason: str) -> None:
        """Ignore the close."""

    def abort(self) -> None:
        """Ignore the abort."""


def test_an_encoding_of_lines_gets_the_same_messages_as_frames() -> None:
    """An NDJSON encoding gets the same messages as WebSocket frames, encoded once for all its links."""
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
    messages = [relay_message.validate_json(line) for data in links[0].sent for line in data.splitlines()]
    kinds = [message.type for message in messages]
    assert kinds == browser.kinds() == ["welcome", "subscribed", "snapshot", "events", "heartbeat"]
    assert links[0].sent[3] is links[1].sent[3], "events are encoded once"


def test_an_encoding_of_objects_gets_models_and_events() -> None:
    """An encoding that is not JSON can be built from the models and events that the core hands out."""
    stage = Stage()
    link = Link(Packed())
    stage.hub.sessions.open(link, Request(), stage.now)
    stage.log(1)
    stage.settle()
    *_, last = link.sent
    assert [event["seq"] for event in last] == [1]
    assert link.sent[0][0]["type"] == "welcome"
