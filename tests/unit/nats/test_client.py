"""The client against servers that violate the protocol: it reconnects each time."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Awaitable

import pytest
import uvloop
from nats.aio.client import Client

from tickertape.nats import connection
from tickertape.nats import jetstream_api as jetstream
from tickertape.nats.client import protocol_errors, subscribe_raw
from tickertape.nats.wire import protocol_parser
from tickertape.nats.wire.protocol_parser import Message
from tickertape.nats.wire.transport import WireTransport

PATIENCE = 30.0
INFO = b'INFO {"server_id":"x","version":"2.15.1","proto":1,"headers":true,"max_payload":1048576}\r\n'


@contextlib.asynccontextmanager
async def server(*output: bytes, greeting: bytes = INFO) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Run a server that misbehaves on each connection but the last; yield its address and what it
    received.
    """
    rest = list(output)
    received: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bad = rest.pop(0) if rest else b""
        writer.write(INFO if greeting is INFO or not bad else greeting)
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                received.append(line)
                if line == b"PING\r\n":
                    writer.write(b"PONG\r\n" + bad)
                    bad = b""
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}", received
    finally:
        listener.close()


def socket_of(client: Client) -> asyncio.Transport | None:
    """Return the socket's transport of a client."""
    assert isinstance(client._transport, WireTransport)
    return client._transport._open_socket()


async def until_reconnected(client: Client) -> None:
    async with asyncio.timeout(PATIENCE):
        while not (client.is_connected and client.stats["reconnects"]):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "output",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"MSG a 1 x\r\n",
        b"MSG a 1 5\r\nhello, world\r\n",
        b"MSG a 1 999999999\r\n",
        b"MSG ".ljust(protocol_parser.MAX_LINE + 1, b"x"),
        b"INFO {\r\n",
        b"INFO []\r\n",
        b'INFO {"connect_urls":7}\r\n',
        b"\xff" * 10 + b"\r\n",
    ],
)
def test_what_cannot_be_read_is_a_lost_connection(output: bytes) -> None:
    """Unparsable data is reported once, and the client reconnects."""

    async def main() -> None:
        downs: list[connection.ConnectFailure] = []

        async def down(failure: connection.ConnectFailure) -> None:
            downs.append(failure)

        async with server(output) as (url, _):
            client = await connection.connect(url, name="test", on_down=down)
            await until_reconnected(client)
            assert protocol_errors(client) == 1
            assert len(downs) == 1
            await connection.close(client)

    asyncio.run(main())


@pytest.mark.parametrize(
    "greeting", [b"INFO ".ljust(100_000, b"x") + b"\r\n", b"INFO []\r\n", b"INFO 7\r\n", b"\xff\r\n"]
)
def test_a_greeting_that_cannot_be_read_is_tried_again(greeting: bytes) -> None:
    """An unparsable greeting is retried, on the first connection and on reconnection."""

    async def main() -> None:
        async with server(b"bad", b"bad", greeting=greeting) as (url, _):
            client = await asyncio.wait_for(connection.connect(url, name="test"), PATIENCE)
            assert client.is_connected
            await connection.close(client)

    asyncio.run(main())


@pytest.mark.parametrize(
    "step", ["_select_next_server", "_process_connect_init", "flush", "_disconnected_cb"]
)
@pytest.mark.parametrize("error", [RuntimeError("in use"), AttributeError("x")])
def test_an_unexpected_error_is_a_failed_attempt(
    step: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a step of a reconnection raises, the next attempt follows, and the error is reported; also if
    the report fails.
    """
    errors: list[Exception] = []

    async def report(one: Exception) -> None:
        errors.append(one)
        if one is error:
            raise error

    async def main() -> None:
        async with server() as (url, _):
            client = await connection.connect(url, name="test")
            monkeypatch.setattr(client, "_error_cb", report)
            original, failed = getattr(client, step), False

            async def fail_once(*arguments: object) -> object:
                nonlocal failed
                if not failed and not client.is_closed:
                    failed = True
                    raise error
                return await original(*arguments)

            monkeypatch.setattr(client, step, fail_once)
            transport = socket_of(client)
            assert transport is not None
            transport.abort()
            async with asyncio.timeout(PATIENCE):
                while not (failed and client.is_connected):
                    await asyncio.sleep(0.01)
            await client.flush()
            await connection.close(client)

    asyncio.run(main())
    assert error in errors


def test_a_drain_that_takes_too_long_leaves_nothing_to_report(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server that is too slow for a drain does not make asyncio print a traceback when a program ends."""

    async def hang(*_: object) -> None:
        await asyncio.sleep(PATIENCE)

    async def main() -> None:
        async with server() as (url, _):
            client = await connection.connect(url, name="test")
            for subject in ("a", "b"):
                await client.subscribe(subject)
            monkeypatch.setattr(client, "flush", hang)
            await connection.close(client, timeout=0.05)
            assert client.is_closed
            del client
            gc.collect()
            await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert [record.getMessage() for record in caplog.records] == []


def test_messages_before_the_fault_are_delivered() -> None:
    """Messages before the violation are delivered, whatever bytes their subjects and header blocks
    contain.
    """
    output = b"MSG a.\xff 1 \xfe.\x0b 2\r\nhi\r\nHMSG a 1 4 6\r\n\xff\xff\r\nho\r\n"
    output += b"-ERR 'Permissions Violation \xff'\r\nPING\r\nbad\r\n"

    async def main() -> None:
        async with server() as (url, received):
            client = await connection.connect(url, name="test")
            got: list[tuple[str, str, bytes, dict[str, str] | None]] = []

            async def take(message: object) -> None:
                fields = ("subject", "reply", "data", "headers")
                got.append(tuple(getattr(message, name) for name in fields))

            await client.subscribe("a.>", cb=take)
            await client.flush()
            assert any(line.startswith(b"SUB a.> ") for line in received)
            before = client.stats["reconnects"]
            with contextlib.suppress(protocol_parser.ParserError):
                await client._ps.parse(output)
            await asyncio.sleep(0)
            assert got[0] == ("a.\udcff", "\udcfe.\x0b", b"hi", None)
            assert got[1][:3] == ("a", "", b"ho")
            assert client.stats["reconnects"] == before
            await connection.close(client)

    asyncio.run(main())


@pytest.mark.parametrize("answer", [b"", b"{", b"\xff", b"[]", b"7", b'{"error":7}'])
def test_an_answer_of_jetstream_that_cannot_be_read_is_asked_for_again(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JetStream response that cannot be parsed is requested again, since anyone may publish to an inbox."""

    async def requested(*_: object) -> object:
        return type("Reply", (), {"data": answer})()

    monkeypatch.setattr(jetstream, "request_raw", requested)
    with pytest.raises(jetstream.StreamsError, match="is invalid") as raised:
        asyncio.run(jetstream.request(Client(), "INFO"))
    assert raised.value.transient


def test_a_repeated_subscription_keeps_its_limit() -> None:
    """One that ends after a message would otherwise receive all of them once NATS grants it."""

    async def main() -> None:
        async with server() as (url, received):
            client = await connection.connect(url, name="test")
            subscription = await client.subscribe("a.>", max_msgs=1)
            await subscription.unsubscribe(limit=1)
            await client.repeat_subscription(subscription._id)
            await client.flush()
            commands = [line.split()[0] for line in received if line.startswith((b"SUB a.> ", b"UNSUB "))]
            assert commands == [b"SUB", b"UNSUB", b"SUB", b"UNSUB"]
            await connection.close(client)

    asyncio.run(main())


def test_reading_is_paused_and_resumed() -> None:
    """Reading is paused on the socket itself; on a closed client this is a no-op."""

    async def main() -> None:
        async with server() as (url, _):
            client = await connection.connect(url, name="test")
            transport = socket_of(client)
            assert transport is not None
            client.pause_reading()
            assert not transport.is_reading()
            client.resume_reading()
            assert transport.is_reading()
            await connection.close(client)
            client.pause_reading()
            client.resume_reading()

    asyncio.run(main())


def test_another_s_client_has_no_faults() -> None:
    """A nats-py client that the caller passes to the SDK records no faults."""
    assert protocol_errors(Client()) == 0


LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.mark.parametrize("loop", LOOPS)
def test_a_socket_that_is_closed_below_is_a_lost_connection(loop: str) -> None:
    """A flush that meets a closed socket before the read loop does leads to a reconnection without losing
    messages.
    """

    async def work() -> None:
        async with server() as (url, received):
            client = await connection.connect(url, name="test")
            reading = client._reading_task
            assert reading is not None
            reading.cancel()  # so that nothing else notices the end of the stream
            await asyncio.wait([reading])
            writer = client._transport._io_writer  # type: ignore[union-attr]
            writer.transport.abort()
            await writer.wait_closed()
            await client.publish("a", b"hello")
            await until_reconnected(client)
            await client.publish("a", b"again")
            await client.flush()
            assert b"again\r\n" in received
            await connection.close(client)

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(work())


@pytest.mark.parametrize("loop", [asyncio.SelectorEventLoop, uvloop.Loop])
def test_closing_does_not_wait_for_a_server_that_does_not_read(
    loop: type[asyncio.AbstractEventLoop],
) -> None:
    """A server that has stopped reading does not delay the end of the process."""
    stopped = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(INFO)
        while await reader.readline() != b"PING\r\n":
            pass
        writer.write(b"PONG\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await stopped.wait()
        writer.transport.abort()

    async def main() -> None:
        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        url = f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        client = await connection.connect_once(url, name="test")
        transport = socket_of(client)
        assert transport is not None
        async with asyncio.timeout(PATIENCE):
            while transport.get_write_buffer_size() < 1 << 20:
                # Not publish, which waits ten seconds for a full buffer.
                transport.write(b"PUB log.info.x 4\r\nxxxx\r\n" * 10_000)
                await asyncio.sleep(0)
            await client.publish("log.info.x", b"last")
            await connection.close(client)
        assert client.is_closed
        stopped.set()
        listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(main())


def test_a_raw_handler_receives_messages_where_they_are_read() -> None:
    """A raw handler receives bytes, in order and before what follows; its error ends nothing but itself."""
    handled: list[bytes] = []

    async def finish(message: Message) -> None:
        await asyncio.sleep(0)
        handled.append(b"after " + message.data)

    def handle(message: Message) -> Awaitable[None] | None:
        handled.append(message.data)
        if message.data == b"c":
            raise ValueError("a fault of the handler")
        return finish(message) if message.data == b"b" else None

    async def main() -> None:
        async with server() as (url, _):
            client = await connection.connect(url, name="test")
            subscription = await subscribe_raw(client, "\xff.>", handle)
            messages = [b"MSG \xff.x %d 1\r\n%c\r\n" % (subscription._id, letter) for letter in b"abcd"]
            await client._ps.parse(b"".join(messages))
            assert handled == [b"a", b"b", b"after b", b"c", b"d"]
            assert client.is_connected
            await subscription.unsubscribe()
            await client._ps.parse(messages[0])
            assert len(handled) == 5
            await connection.close(client)

    asyncio.run(main())
