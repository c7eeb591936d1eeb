"""HTTP requests, against real servers that delay and break their responses."""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trustme

from tests.support.patience import PATIENCE
from tests.support.servers.slow_server import PIECES, slow_server
from tickertape.net.http_client import MAX_FRAMING, PIECE, HttpError, fetch
from tickertape.net.outgoing import describe_failure
from tickertape.process.event_loop import Loop

DEADLINE = 0.3
"""Seconds for an exchange that is expected to miss its deadline."""


def run(scenario: Callable[[], Awaitable[None]], loop: type[asyncio.AbstractEventLoop] = Loop) -> None:
    """Run a coroutine within the patience of the tests."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await scenario()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


@pytest.mark.parametrize("kind", PIECES)
def test_the_deadline_covers_the_whole_exchange(kind: str) -> None:
    """A server that sends something all the time does not extend the deadline; the connection is closed."""

    async def scenario() -> None:
        scheme = "https" if "TLS" in kind else "http"
        async with slow_server(kind) as server:
            # On a busy machine the deadline may pass before the connection is made.
            while not server.accepted:
                # A response that is not HTTP is recognized before the deadline.
                with pytest.raises((TimeoutError, HttpError)):
                    await fetch(f"{scheme}://127.0.0.1:{server.port}/", DEADLINE, 1 << 20)
            await server.wait_until_closed()

    run(scenario)


@pytest.mark.parametrize("kind", PIECES)
def test_a_cancelled_request_closes_its_connection(kind: str) -> None:
    """Cancelling a request ends it in every phase, so that it does not delay the end of the process."""

    async def scenario() -> None:
        scheme = "https" if "TLS" in kind else "http"
        async with slow_server(kind) as server:
            request = asyncio.create_task(fetch(f"{scheme}://127.0.0.1:{server.port}/", PATIENCE, 1 << 20))
            async with server.changed:
                await server.changed.wait_for(lambda: server.accepted > 0)
            request.cancel()
            with contextlib.suppress(asyncio.CancelledError, HttpError):
                await request
            await server.wait_until_closed()

    run(scenario)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (b"", "closed the connection without a response"),
        (b"SSH-2.0-OpenSSH\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000, "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz", "not HTTP"),
    ],
)
def test_an_invalid_response_is_an_error(response: bytes, error: str) -> None:
    """A response that is incomplete, not HTTP, or has endless headers is an error."""

    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(response)
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(OSError) as caught:  # noqa: PT011 (its description is compared below)
                await fetch(f"http://127.0.0.1:{port}/", PATIENCE, 1 << 20)
            # The peer may have closed the connection before it has read the request.
            assert error in describe_failure(caught.value) or isinstance(caught.value, ConnectionError)

    run(scenario)


ENDLESS = {
    "interim responses": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    "early hints": (b"", b"HTTP/1.1 103 Early Hints\r\n" + b"a: b\r\n" * 1_000 + b"\r\n"),
    "tiny chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "chunk extensions": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1;" + b"e" * 9_999 + b"\r\nx\r\n",
    ),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_a_fast_server_neither_blocks_the_event_loop_nor_goes_on_without_end(name: str) -> None:
    """A response whose body hardly grows is an error, and the event loop turns between its pieces."""
    head, part = ENDLESS[name]
    block = part * (64 * 1024 // len(part) + 1)
    turns = 0

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(head)
            while not writer.is_closing():
                writer.write(block)
                await writer.drain()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def scenario() -> None:
        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            counting = asyncio.ensure_future(count_turns())
            with pytest.raises(OSError, match="without end"):
                await fetch(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", PATIENCE, 64 * 1024)
            counting.cancel()

    run(scenario)
    assert turns >= MAX_FRAMING // PIECE


def test_the_body_is_truncated_at_the_limit() -> None:
    """The body is truncated at the limit, which the response reports; a body of that size is complete."""

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=9\r\n\r\n12345")
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(respond, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            for limit, body, truncated in ((4, b"1234", True), (5, b"12345", False)):
                response = await fetch(url, PATIENCE, limit)
                assert (response.body, response.truncated) == (body, truncated)
                assert response.headers["cache-control"] == "max-age=9"

    run(scenario)


@pytest.mark.parametrize("loop", [Loop, asyncio.SelectorEventLoop])
def test_https_goes_through_the_proxy_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, loop: type[asyncio.AbstractEventLoop]
) -> None:
    """An https request uses the proxy if the caller allows that, and verifies the server's certificate."""
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("keys.example").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    requests: list[bytes] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(respond, "127.0.0.1", 0, ssl=served) as server:
            target = server.sockets[0].getsockname()[1]

            async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                far, out = await asyncio.open_connection("127.0.0.1", target)
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await asyncio.gather(_copy(reader, out), _copy(far, writer))

            async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
                port = proxy.sockets[0].getsockname()[1]
                monkeypatch.setenv("https_proxy", f"http://me:p%40ss@127.0.0.1:{port}")
                monkeypatch.setenv("no_proxy", "")
                url = "https://keys.example/jwks"
                assert (await fetch(url, PATIENCE, 9, tls=trusting, proxies=True)).body == b"ok"
                with pytest.raises(ssl.SSLCertVerificationError):
                    await fetch(url, PATIENCE, 9, proxies=True)

    run(scenario, loop)
    assert requests[0].startswith(b"CONNECT keys.example:443 HTTP/1.1\r\n")
    assert b"basic bwu6cebzcw==" in requests[0].lower()


@pytest.mark.parametrize("loop", [Loop, asyncio.SelectorEventLoop])
@pytest.mark.parametrize("read_with_head", [True, False])
def test_a_proxy_cannot_answer_in_the_place_of_the_host(
    monkeypatch: pytest.MonkeyPatch, read_with_head: bool, loop: type[asyncio.AbstractEventLoop]
) -> None:
    """What a proxy sends before TLS does not count as received over TLS, whenever it is read."""
    authority = trustme.CA()
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("keys.example").configure_cert(served)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    head = b"HTTP/1.1 200 OK\r\nX: %s\r\n\r\n"
    padding = b"x" * (0 if read_with_head else PIECE - len(head % b""))

    async def cheat(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head % padding + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
            await writer.start_tls(served)
            await reader.read()
        writer.close()

    async def scenario() -> None:
        async with await asyncio.start_server(cheat, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
            monkeypatch.setenv("no_proxy", "")
            with pytest.raises(ConnectionError, match="plain text before TLS"):
                await fetch("https://keys.example/jwks", PATIENCE, 9, tls=trusting, proxies=True)

    run(scenario, loop)


@pytest.mark.parametrize("value", ["Bearer hunter22\nX: 1", "Bearer hunter22\u6b63"])
def test_the_error_of_an_invalid_request_shows_no_header(value: str) -> None:
    """A token that cannot be sent is not part of the error."""

    async def scenario() -> None:
        async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            with pytest.raises(HttpError, match=r"^request is invalid: a header") as caught:
                await fetch(url, PATIENCE, 9, headers={"Authorization": value})
            assert "hunter" not in str(caught.value)

    run(scenario)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(1 << 16):
            writer.write(data)
    writer.close()
