"""A client over ASGI, with a server that a test plays: what it is sent, when it is paused, how it ends."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from starlette.types import Message, Scope
from tickertape.relay import relay as assembly
from tickertape.relay.asgi import connection as asgi_client
from tickertape.relay.asgi.app import _path_below_mount
from tickertape.relay.asgi.connection import TEXT, AsgiConnection
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON
from tickertape.relay.transport.connections import BUFFER_HIGH, BUFFER_LOW, Connections

from tests.support.clients.fake_link import Stage
from tests.support.patience import PATIENCE


class Server:
    """An ASGI server with one client.

    Args:
        stage: whose hub it gets.
        limits: of admission.
        scope: more of the connection's scope.
    """

    def __init__(self, stage: Stage, limits: Limits | None = None, **scope: Any) -> None:
        self.stage = stage
        self.admission = Admission(limits or Limits())
        self.connections = Connections(stage.hub, lambda: stage.now, admission=self.admission)
        self.sent: list[Message] = []
        self.fault: Exception | None = None
        self.room = asyncio.Event()
        self.room.set()
        self._said: asyncio.Queue[Message] = asyncio.Queue()
        self._said.put_nowait({"type": "websocket.connect"})
        self._scope: Scope = {
            "type": "websocket",
            "scheme": "ws",
            "path": "/",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
            "client": ("127.0.0.1", 1),
            "subprotocols": [],
            **scope,
        }

    def serve(self) -> "asyncio.Task[None]":
        """Serve the client."""
        client = AsgiConnection(self.connections, self._scope, self._said.get, self._send)
        return asyncio.create_task(client.serve())

    def say(self, **message: Any) -> None:
        """Let the client, or the server, say something."""
        self._said.put_nowait(message)

    def hang_up(self) -> None:
        """Let the client go."""
        self.say(type="websocket.disconnect", code=1001)

    def messages(self) -> list[dict[str, Any]]:
        """What the client was sent."""
        return [orjson.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    async def _send(self, message: Message) -> None:
        await self.room.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(message)


async def settled() -> None:
    """Let everything that can go on do so."""
    for _ in range(20):
        await asyncio.sleep(0)


def play(part: Callable[[], Awaitable[None]]) -> None:
    """Play a part in an event loop of its own."""
    asyncio.run(asyncio.wait_for(part(), PATIENCE))


def test_it_is_counted_from_the_accept_to_its_end() -> None:
    """And every message is JSON text of its own."""

    async def part() -> None:
        server = Server(Stage())
        serving = server.serve()
        await settled()
        assert server.sent[0] == {"type": "websocket.accept", "subprotocol": None}
        assert [message["type"] for message in server.messages()] == ["welcome", "subscribed", "snapshot"]
        assert (len(server.connections), server.admission.open, len(server.stage.hub.sessions)) == (1, 1, 1)
        server.hang_up()
        await serving
        assert (len(server.connections), server.admission.open, len(server.stage.hub.sessions)) == (0, 0, 0)
        assert dict(server.connections.close_counts) == {1001: 1}

    play(part)


def test_a_full_socket_makes_it_a_cursor() -> None:
    """Nothing gathers but what is on its way; when there is room again, the rest comes from the log."""

    async def part() -> None:
        stage = Stage()
        server = Server(stage)
        serving = server.serve()
        await settled()
        (session,) = stage.hub.sessions
        server.room.clear()
        for seq in range(1, 801):
            stage.log(seq, size=1_000)
            stage.settle()
            await settled()
        assert not session.writable
        assert 0 < session.cursor < 100
        server.room.set()
        await settled()
        assert session.writable
        while stage.hub.fanout.behind:
            stage.flush(0.1)
            await settled()
        await settled()
        events = [item for message in server.messages() for item in message.get("events", ())]
        assert [item["seq"] for item in events] == list(range(1, 801))
        server.hang_up()
        await serving

    play(part)


def test_a_large_batch_pauses_nobody_who_takes_it() -> None:
    """What is more than a socket's buffer, and goes out at once, is no reason to fall behind."""
    assert BUFFER_LOW < BUFFER_HIGH < asgi_client.BURST_HIGH

    async def part() -> None:
        stage = Stage()
        server = Server(stage)
        serving = server.serve()
        await settled()
        (session,) = stage.hub.sessions
        paused = []
        for seq in range(1, 101):
            stage.log(seq, size=1_000)
        stage.flush()
        paused.append(session.writable)
        await settled()
        assert paused == [True]
        server.hang_up()
        await serving

    play(part)


def test_a_client_that_takes_no_close_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its task ends, whatever is still to be said."""
    monkeypatch.setattr(asgi_client, "CLOSE_TIMEOUT", 0.01)

    async def part() -> None:
        server = Server(Stage())
        serving = server.serve()
        await settled()
        server.room.clear()
        server.say(type="websocket.receive", text="nonsense")
        await serving
        assert len(server.connections) == 0
        assert dict(server.connections.close_counts) == {4400: 1}

    play(part)


@pytest.mark.parametrize("fault", [OSError("gone"), RuntimeError("after websocket.close")])
def test_a_server_that_takes_no_more_ends_it(fault: Exception) -> None:
    """Whatever the server calls it, and even if it never says that the client is gone."""

    async def part() -> None:
        stage = Stage()
        server = Server(stage)
        serving = server.serve()
        await settled()
        server.fault = fault
        stage.log(1)
        stage.settle()
        await serving
        assert len(stage.hub.sessions) == 0

    play(part)


def test_a_fault_of_ours_ends_one_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """With 1011, as the client may come back; the log has its traceback and the session's id."""

    async def part() -> None:
        server = Server(Stage(report=assembly.session_failed))

        def broken(*arguments: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(server.stage.hub.sessions, "receive", broken)
        serving = server.serve()
        await settled()
        session = next(iter(server.stage.hub.sessions)).id
        server.say(type="websocket.receive", text="{}")
        await settled()
        (fault,) = [record for record in caplog.records if record.exc_info]
        assert vars(fault)["session"] == session
        assert server.messages()[-1]["code"] == 1011
        assert server.sent[-1] == {"type": "websocket.close", "code": 1011, "reason": INTERNAL_ERROR_REASON}
        server.hang_up()
        await serving

    play(part)


@pytest.mark.parametrize("extension", [True, False])
def test_a_refusal_before_the_accept(extension: bool) -> None:
    """In full where the server can say it, else by a close, which is a 403."""

    async def part() -> None:
        server = Server(
            Stage(),
            extensions={"websocket.http.response": {}} if extension else None,
            query_string=b"level=LOUD",
        )
        await server.serve()
        if extension:
            assert server.sent[0]["type"] == "websocket.http.response.start"
            assert server.sent[0]["status"] == 400
            assert orjson.loads(server.sent[1]["body"])["code"] == "bad_level"
        else:
            (message,) = server.sent
            assert (message["type"], message["code"]) == ("websocket.close", 4409)
        assert server.admission.open == 0

    play(part)


def test_more_than_there_may_be_are_refused() -> None:
    """The limits of a relay hold here too."""

    async def part() -> None:
        server = Server(Stage(), Limits(connections=1), extensions={"websocket.http.response": {}})
        first = server.serve()
        await settled()
        other = Server(server.stage, extensions={"websocket.http.response": {}})
        other.connections = server.connections
        await other.serve()
        assert other.sent[0]["status"] == 503
        server.hang_up()
        await first
        assert server.admission.open == 0

    play(part)


def test_messages_are_texts_for_the_server() -> None:
    """Not frames, in their order; their length is in bytes."""
    data = TEXT.encode([messages.pong("é"), messages.pong(None)])
    assert data.texts == ['{"type":"pong","id":"é"}', '{"type":"pong","id":null}']
    assert len(data) == len("".join(data.texts).encode())


@pytest.mark.parametrize(
    ("path", "root", "rest"),
    [
        ("/feed/ws", "/feed", "/ws"),
        ("/feed", "/feed", ""),
        ("/feed/", "/feed", "/"),
        ("/ws", "", "/ws"),
        ("/ws/ws", "/ws", "/ws"),
        ("/api/feed/ws", "/api/feed", "/ws"),
        ("/ws", "/behind/a/proxy", "/ws"),
        ("/feeds/ws", "/feed", "/feeds/ws"),
    ],
)
def test_where_it_is_mounted_does_not_matter(path: str, root: str, rest: str) -> None:
    """``root_path`` is what lies above."""
    assert _path_below_mount({"path": path, "root_path": root}) == rest
