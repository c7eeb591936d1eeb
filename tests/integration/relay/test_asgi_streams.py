"""HTTP streams of a feed that is mounted in a host application, under a real uvicorn."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support.clients import forge
from tests.support.clients.feed_client import PATIENCE, jetstream, line, publish, run
from tests.support.clients.stream_client import Rejected, StreamClient, stream
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import eventually
from tests.support.servers.nats_server import NatsServer

PATHS = ["/sse", "/stream"]


@pytest.fixture
def host(nats_server: NatsServer) -> Iterator[Host]:
    """Run a host with a feed whose clients are pinged every two seconds."""
    mounted = Host({"/feed": {"nats_url": nats_server.url, "client_rate": 0}})
    mounted.program = ["tests.support.programs.quick_pings", "host"]
    with mounted as running:
        running.until_ready()
        yield running


def address(host: Host, path: str) -> str:
    """Return the URL of a stream."""
    return f"http://127.0.0.1:{host.port}/feed{path}"


def connections(host: Host) -> int:
    """Return the number of connections of the feed."""
    with urlopen(address(host, "/health"), timeout=PATIENCE) as response:
        return int(json.loads(response.read())["connections"])


async def started(client: StreamClient) -> StreamClient:
    """Read up to the end of the start of a session."""
    if not (await client.one("subscribed"))["resumed"]:
        await client.one("snapshot")
    return client


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("gzip", [False, True])
def test_a_mounted_stream_resumes(host: Host, nats_server: NatsServer, path: str, gzip: bool) -> None:
    """A mounted stream carries the same messages, and continues from a cursor; its clients are counted."""

    async def check() -> None:
        async with jetstream(nats_server.url) as js:
            async with stream(address(host, path), gzip=gzip) as client:
                await started(client)
                assert await asyncio.to_thread(connections, host) == 1
                texts = [f"{number} {'x' * 3_000}" for number in range(60)]
                await asyncio.gather(*(publish(js, line(text)) for text in texts))
                assert sorted(await client.texts(60)) == sorted(texts)
                if path == "/sse":
                    while not client.comments:
                        await client.read()
            await publish(js, line("meanwhile"))
            cursor = [message["cursor"] for message in client.messages if "cursor" in message][-1]
            query = {} if path == "/sse" else {"cursor": cursor}
            async with stream(address(host, path), last_id=client.last_id, query=query) as again:
                assert await again.texts(1) == ["meanwhile"]
        while await asyncio.to_thread(connections, host):
            await asyncio.sleep(0.01)

    run(check())


@pytest.mark.parametrize("path", PATHS)
def test_a_host_that_stops_says_bye(host: Host, path: str) -> None:
    """When the host stops, a stream ends with ``bye`` and the end of its body."""

    async def check() -> None:
        async with stream(address(host, path)) as client:
            await started(client)
            stopping = asyncio.create_task(asyncio.to_thread(host.stop))
            assert (await client.one("bye"))["code"] == 1001
            with pytest.raises(EOFError):
                await client.read()
            await stopping

    run(check())


@pytest.mark.parametrize("path", PATHS)
def test_a_client_that_does_not_read_is_disconnected(host: Host, nats_server: NatsServer, path: str) -> None:
    """A client that reads nothing is disconnected; the others get every event."""

    async def check() -> None:
        async with stream(address(host, path), query={"mode": "complete"}) as client:
            await started(client)
            # More than the kernel buffers for the client that does not read.
            texts = [f"{number} {'x' * 200_000}" for number in range(50)]
            async with jetstream(nats_server.url) as js:
                for text in texts:
                    await publish(js, line(text))
            assert await client.texts(50) == texts

    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.settimeout(PATIENCE)
        slow.connect(("127.0.0.1", host.port))
        slow.sendall(f"GET /feed{path}?mode=complete HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        assert slow.recv(1) == b"H"
        eventually(lambda: connections(host) == 1, "the slow client has a session")
        run(check())
        eventually(lambda: connections(host) == 0, "the slow client is disconnected")


def test_rejections_of_a_mounted_stream(host: Host) -> None:
    """A bad query is a status, and final for a browser that resumes; HEAD has no body."""

    async def status(last_id: str) -> tuple[int, bytes]:
        with pytest.raises(Rejected) as caught:
            async with stream(address(host, "/sse"), last_id=last_id, query={"level": "x"}):
                pass
        return caught.value.status, caught.value.body

    assert run(status(""))[0] == 400
    assert run(status("x-1")) == (204, b"")
    with urlopen(Request(address(host, "/sse"), method="HEAD"), timeout=PATIENCE) as response:
        assert (response.status, response.headers["content-type"]) == (200, "text/event-stream")
        assert response.headers["x-content-type-options"] == "nosniff"
    assert connections(host) == 0


def test_the_cookie_of_a_mounted_feed(nats_server: NatsServer) -> None:
    """The cookie is for the stream below the mount point, and a browser that resumes is told of its end."""
    settings = {"nats_url": nats_server.url, **forge.RELAY_SETTINGS}

    def token(life: float) -> str:
        return forge.token("HS256", forge.claims(exp=time.time() + life, tickertape={"subjects": [">"]}))

    def log_in(host: Host, text: str) -> str:
        headers = {"Authorization": f"Bearer {text}"}
        with urlopen(Request(address(host, "/session"), method="POST", headers=headers)) as response:
            return str(response.headers["set-cookie"])

    async def check(host: Host) -> None:
        cookie, path, *_ = (await asyncio.to_thread(log_in, host, token(3_600))).split("; ")
        assert path == "Path=/feed/sse"
        async with stream(address(host, "/sse"), headers={"Cookie": cookie}) as client:
            await started(client)
        expired = {"Cookie": f"tickertape_session={token(-60)}"}
        async with stream(address(host, "/sse"), headers=expired, last_id="x-1") as again:
            assert (await again.one("bye"))["code"] == 4401
        with pytest.raises(Rejected) as caught:
            async with stream(address(host, "/stream"), headers={"Cookie": cookie}):
                pass
        assert caught.value.status == 401

    with Host({"/feed": settings}) as host:
        host.until_ready()
        with pytest.raises(HTTPError):
            log_in(host, "x.y.z")
        run(check(host))
