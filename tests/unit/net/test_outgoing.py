"""Outgoing connections: their errors name the phase that failed, whatever event loop runs them."""

import asyncio
import socket
import ssl
from typing import Any

import pytest
import uvloop

from tests.support.patience import PATIENCE
from tests.support.servers.black_hole import black_hole
from tests.support.servers.name_service import NameService, name_service
from tickertape.net import outgoing
from tickertape.net.outgoing import (
    connect,
    connect_blocking,
    deadline,
    describe_failure,
    open_connection,
    write,
)
from tickertape.net.resolver import Resolver
from tickertape.process.event_loop import Loop


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


def test_a_failed_connection_is_described_without_its_address() -> None:
    """The description is that of the system; callers know the address, and write it in their own form."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as caught:
            asyncio.run(connect("127.0.0.1", port))
    assert str(caught.value.strerror) == "Connection refused"


async def _reply(data: bytes) -> tuple[asyncio.Server, int]:
    """Run a server that sends data to each client, and then closes the connection if there is data."""

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1 << 16)
        if data:
            writer.write(data)
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop, Loop])
def test_a_failed_handshake_names_tls(loop: Any) -> None:
    """A peer that closes the connection, or sends something else, fails in the phase of TLS."""
    context = ssl.create_default_context()

    async def work() -> None:
        closing = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
        plain, port = await _reply(b"220 ready\r\n")
        for target in (closing.sockets[0].getsockname()[1], port):
            (failure,) = await asyncio.gather(
                open_connection("127.0.0.1", target, tls=context), return_exceptions=True
            )
            assert isinstance(failure, OSError)
            assert describe_failure(failure).startswith("TLS failed: ")
        closing.close()
        plain.close()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, Loop])
def test_a_deadline_names_the_phase(loop: Any) -> None:
    """The error of a deadline says what has not happened, whether TLS is in use or not."""

    async def error_of(port: int, tls: ssl.SSLContext | None, seconds: float) -> str:
        try:
            async with deadline(seconds):
                reader, writer = await open_connection("127.0.0.1", port, tls=tls)
                try:
                    await reader.read(1)
                finally:
                    writer.transport.abort()
        except TimeoutError as error:
            return describe_failure(error)
        raise AssertionError

    async def expect(port: int, tls: ssl.SSLContext | None, phase: str) -> None:
        found = ""
        for seconds in (0.1, 1, 10, 60):
            found = await error_of(port, tls, seconds)
            if found == f"{phase} within {seconds:g} s":
                return
            # On a busy machine, the phases before it may take that long.
        raise AssertionError(found)

    async def work() -> None:
        silent, port = await _reply(b"")
        await expect(port, None, "no response")
        await expect(port, ssl.create_default_context(), "no TLS handshake")
        silent.close()
        with black_hole("127.0.0.1", 0) as port:
            await expect(port, None, "no connection")

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())


def test_libraries_share_the_look_ups_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that calls ``getaddrinfo`` of the event loop, as aiohttp does, joins a look-up."""
    monkeypatch.setattr(outgoing, "_resolver", Resolver())

    async def work(names: NameService) -> None:
        loop = asyncio.get_running_loop()
        options: dict[str, Any] = {"type": socket.SOCK_STREAM, "flags": socket.AI_ADDRCONFIG}
        asking = [asyncio.create_task(loop.getaddrinfo("name", port, **options)) for port in (80, 81)]
        while not names.calls:
            await asyncio.sleep(0.001)
        names.answer("name", "10.0.0.1")
        assert [address[0][4] for address in await asyncio.gather(*asking)] == [
            ("10.0.0.1", 80),
            ("10.0.0.1", 81),
        ]
        assert names.calls == {"name": 1}
        assert await loop.getaddrinfo("name", 80, family=socket.AF_INET6) == []

    with name_service(monkeypatch) as names, asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(work(names))


def test_a_program_without_an_event_loop_connects() -> None:
    """It gets a blocking socket, and the error of a deadline."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        connect_blocking("127.0.0.1", server.getsockname()[1], PATIENCE) as sock,
    ):
        assert sock.getblocking()
    with black_hole("127.0.0.1", 0) as port, pytest.raises(TimeoutError, match="no connection within"):
        connect_blocking("127.0.0.1", port, 0.05)
