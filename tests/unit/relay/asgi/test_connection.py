"""Connections over ASGI on a fake server: messages, pauses and closing."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
import pytest
from starlette.types import Message, Scope
from tickertape.relay import relay as relay_module
from tickertape.relay.asgi import connection as asgi_connection
from tickertape.relay.asgi.app import _path_below_mount
from tickertape.relay.asgi.connection import AsgiConnection
from tickertape.relay.asgi.encoding import TEXT
from tickertape.relay.core import server_messages as messages
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.core.session.faults import INTERNAL_ERROR_REASON
from tickertape.relay.transport.backpressure import BUFFER_HIGH, BUFFER_LOW, MAX_MISSED
from tickertape.relay.transport.connections import Connections

from tests.support.clients.fake_link import Stage
from tests.support.patience import PATIENCE


class Server:
    """ASGI server with one client.

    Args:
        stage: provides the hub.
        limits: connection limits.
        scope: additional fields of the connection's scope.
    """

    def __init__(self, stage: Stage, limits: Limits | None = None, **scope: Any) -> None:
        self.stage = stage
        self.admission = Admission(limits or Limits())
        self.connections = Connections(stage.hub, lambda: stage.now, admission=self.admission)
        self.sent: list[Message] = []
        self.fault: Exception | None = None
        self.writable_event = asyncio.Event()
        self.writable_event.set()
        self._incoming: asyncio.Queue[Message] = asyncio.Queue()
        self._incoming.put_nowait({"type": "websocket.connect"})
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
        """Start serving the client and return its task."""
        client = AsgiConnection(self.connections, self._scope, self._incoming.get, self._send)
        return asyncio.create_task(client.serve())

    def push(self, **message: Any) -> None:
        """Queue a message from the client or the server for the application."""
        self._incoming.put_nowait(message)

    def disconnect(self) -> None:
        """Disconnect the client."""
        self.push(type="websocket.disconnect", code=1001)

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages sent to the client."""
        return [orjson.loads(message["text"]) for message in self.sent if message["type"] == "websocket.send"]

    async def _send(self, message: Message) -> None:
        await self.writable_event.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(message)


async def settled() -> None:
    """Wait until all tasks that can run have run."""
    for _ in range(20):
        await asyncio.sleep(0)


def run_scenario(scenario: Callable[[], Awaitable[None]]) -> None:
    """Run a scenario in a new event loop."""
    asyncio.run(asyncio.wait_for(scenario(), PATIENCE))


def test_a_connection_is_counted_from_accept_to_close() -> None:
    """A connection is counted from accept to close, and every message is a separate JSON text."""

    async def scenario() -> None:
        server = Server(Stage())
        serving = server.serve()
        await settled()
        assert server.sent[0] == {"type": "websocket.accept", "subprotocol": None}
        assert [message["type"] for message in server.messages()] == ["welcome", "subscribed", "snapshot"]
        assert (len(server.connections), server.admission.open, len(server.stage.hub.sessions)) == (1, 1, 1)
        server.disconnect()
        await serving
        assert (len(server.connections), server.admission.open, len(server.stage.hub.sessions)) == (0, 0, 0)
        assert dict(server.connections.close_counts) == {1001: 1}

    run_scenario(scenario)


def test_a_full_socket_is_caught_up_from_the_log() -> None:
    """While the socket is full, only events in flight are buffered; the rest is replayed from the log."""

    async def scenario() -> None:
        stage = Stage()
        server = Server(stage)
        serving = server.serve()
        await settled()
        (session,) = stage.hub.sessions
        server.writable_event.clear()
        for seq in range(1, 801):
            stage.log(seq, size=1_000)
            stage.settle()
            await settled()
        assert not session.writable
        assert 0 < session.cursor < 100
        server.writable_event.set()
        await settled()
        assert session.writable
        while stage.hub.fanout.behind:
            stage.flush(0.1)
            await settled()
        await settled()
        events = [item for message in server.messages() for item in message.get("events", ())]
        assert [item["seq"] for item in events] == list(range(1, 801))
        server.disconnect()
        await serving

    run_scenario(scenario)


def test_a_large_batch_does_not_pause_a_reading_client() -> None:
    """A batch larger than the socket's buffer that is sent immediately does not pause the session."""
    assert BUFFER_LOW < BUFFER_HIGH < asgi_connection.BURST_HIGH

    async def scenario() -> None:
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
        server.disconnect()
        await serving

    run_scenario(scenario)


def test_a_client_that_does_not_read_its_close_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task of a client that does not read its close ends despite pending messages."""
    monkeypatch.setattr(asgi_connection, "CLOSE_TIMEOUT", 0.01)

    async def scenario() -> None:
        server = Server(Stage())
        serving = server.serve()
        await settled()
        server.writable_event.clear()
        server.push(type="websocket.receive", text="nonsense")
        await serving
        assert len(server.connections) == 0
        assert dict(server.connections.close_counts) == {4400: 1}

    run_scenario(scenario)


def test_a_client_that_does_not_read_is_paused_then_closed() -> None:
    """Nothing is received from a client whose socket is full; without progress it is closed with 4408."""

    async def scenario() -> None:
        server = Server(Stage())
        serving = server.serve()
        await settled()
        (session,) = server.stage.hub.sessions
        server.writable_event.clear()
        for seq in range(1, 801):
            server.stage.log(seq, size=1_000)
            server.stage.settle()
            await settled()
        assert not session.writable
        for _ in range(50):
            server.push(type="websocket.receive", text='{"type":"subscribe"}')
        await settled()
        assert server._incoming.qsize() >= 49, "at most one was received before the socket was full"
        (client,) = server.connections.all()
        for _ in range(MAX_MISSED):
            client.ping()
            assert len(server.stage.hub.sessions) == 1
        client.ping()
        assert len(server.stage.hub.sessions) == 0
        client.abort()
        await serving
        assert dict(server.connections.close_counts) == {4408: 1}

    run_scenario(scenario)


@pytest.mark.parametrize("fault", [OSError("gone"), RuntimeError("after websocket.close")])
def test_a_failing_send_ends_the_session(fault: Exception) -> None:
    """A send that raises any exception ends the session, even if no disconnect message follows."""

    async def scenario() -> None:
        stage = Stage()
        server = Server(stage)
        serving = server.serve()
        await settled()
        server.fault = fault
        stage.log(1)
        stage.settle()
        await serving
        assert len(stage.hub.sessions) == 0

    run_scenario(scenario)


def test_an_internal_error_ends_one_session(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An internal error is logged with the session's id and closes with 1011, so the client reconnects."""

    async def scenario() -> None:
        server = Server(Stage(report=relay_module.session_failed))

        def broken(*arguments: Any) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(server.stage.hub.sessions, "receive", broken)
        serving = server.serve()
        await settled()
        session = next(iter(server.stage.hub.sessions)).id
        server.push(type="websocket.receive", text="{}")
        await settled()
        (fault,) = [record for record in caplog.records if record.exc_info]
        assert vars(fault)["session"] == session
        assert server.messages()[-1]["code"] == 1011
        assert server.sent[-1] == {"type": "websocket.close", "code": 1011, "reason": INTERNAL_ERROR_REASON}
        server.disconnect()
        await serving

    run_scenario(scenario)


@pytest.mark.parametrize("extension", [True, False])
def test_a_rejection_before_accept_is_sent(extension: bool) -> None:
    """A rejection is an HTTP response if the server supports that, else a close, which becomes a 403."""

    async def scenario() -> None:
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

    run_scenario(scenario)


def test_connections_over_the_limit_are_rejected() -> None:
    """The connection limits of the relay apply to ASGI connections too."""

    async def scenario() -> None:
        server = Server(Stage(), Limits(connections=1), extensions={"websocket.http.response": {}})
        first = server.serve()
        await settled()
        other = Server(server.stage, extensions={"websocket.http.response": {}})
        other.connections = server.connections
        await other.serve()
        assert other.sent[0]["status"] == 503
        server.disconnect()
        await first
        assert server.admission.open == 0

    run_scenario(scenario)


def test_messages_are_encoded_as_texts() -> None:
    """Messages are encoded as texts in their order, not as frames, and their length is in bytes."""
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
def test_the_mount_path_is_removed(path: str, root: str, rest: str) -> None:
    """The path below the mount point is the path without ``root_path``, if it starts with that."""
    assert _path_below_mount({"path": path, "root_path": root}) == rest
