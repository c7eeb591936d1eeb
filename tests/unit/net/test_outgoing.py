"""A write to a closed socket is a lost connection, whatever exception the event loop raises."""

import asyncio

import pytest
import uvloop

from tickertape.net.outgoing import write


def test_a_closed_socket_is_a_connection_reset() -> None:
    """uvloop's RuntimeError becomes a ConnectionResetError."""

    async def work() -> None:
        server = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
        write(writer, b"open")
        writer.transport.abort()
        await writer.wait_closed()
        with pytest.raises(ConnectionResetError):
            write(writer, b"closed")
        server.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
