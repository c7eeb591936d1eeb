"""The proxies of ``deploy/haproxy`` and ``deploy/nginx``, run in front of two real relays."""

import asyncio
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import pytest
from tickertape.contracts.messages import HEARTBEAT_MS
from websockets.exceptions import InvalidStatus

from tests.support.clients.feed_client import PATIENCE, follow, jetstream, line, publish, run
from tests.support.clients.stream_client import Rejected, stream
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.shipped_proxy import CONFIGS, KINDS, proxy

HEARTBEAT = HEARTBEAT_MS // 1000
"""The relay's heartbeat interval in seconds."""


@dataclass(frozen=True)
class Front:
    """A proxy and the relays behind it."""

    ws_url: str
    relays: tuple[Relay, Relay]
    nats_url: str

    def sessions(self) -> list[int]:
        """Return the number of clients of each relay."""
        return [_connections(relay) for relay in self.relays]


def _connections(relay: Relay) -> int:
    with urlopen(f"{relay.ops_url}/metrics", timeout=PATIENCE) as answer:
        found = re.search(r"^tickertape_connections (\d+)", answer.read().decode(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@pytest.fixture(params=KINDS)
def front(request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsServer) -> Iterator[Front]:
    """Run two relays that accept one client per address, behind a proxy of each kind."""
    options = ("--trusted-proxies", "127.0.0.1", "--max-address-connections", "1")
    with (
        Relay(nats_server.url, *options) as one,
        Relay(nats_server.url, *options) as two,
        proxy(request.param, tmp_path, (one, two)) as port,
    ):
        yield Front(f"ws://127.0.0.1:{port}/ws", (one, two), nats_server.url)


def test_sessions_spread_and_are_known_by_their_own_addresses(front: Front) -> None:
    """Each relay accepts one client per address, and the limit applies to the client's address, not the
    proxy's.
    """

    async def visit() -> None:
        async with (
            follow(front.ws_url, source="127.0.0.2") as first,
            follow(front.ws_url, source="127.0.0.2") as second,
        ):
            assert front.sessions() == [1, 1]
            async with jetstream(front.nats_url) as js:
                await publish(js, line("through the proxy"))
            assert await first.texts(1) == await second.texts(1) == ["through the proxy"]
            with pytest.raises(InvalidStatus) as rejected:
                async with follow(front.ws_url, source="127.0.0.2", protocol=False, live=False):
                    pass
            assert rejected.value.response.status_code == 429
            async with follow(front.ws_url, source="127.0.0.3") as other:
                assert await asyncio.wait_for(other.socket.ping(), PATIENCE)

    run(visit())


def test_a_relay_that_stops_gets_no_more_clients(front: Front) -> None:
    """Clients of a stopping relay, and new clients, are directed to the other one."""
    one, two = front.relays

    async def visit() -> None:
        async with follow(front.ws_url, source="127.0.0.2") as first:
            leaving, staying = (one, two) if front.sessions() == [1, 0] else (two, one)
            stopping = asyncio.create_task(asyncio.to_thread(leaving.stop))
            assert await first.closed() == 1001
            assert await stopping == 0
        async with follow(front.ws_url, source="127.0.0.2"), follow(front.ws_url, source="127.0.0.3"):
            assert _connections(staying) == 2

    run(visit())


@pytest.mark.parametrize("path", ["/sse", "/stream"])
def test_a_stream_passes_unbuffered_and_resumes_at_the_other_relay(front: Front, path: str) -> None:
    """Events arrive as they are published, compressed or not; when its relay is killed, a client resumes at
    the other one without loss; and the limits apply to its own address.
    """
    url = f"http{front.ws_url.removeprefix('ws').removesuffix('/ws')}{path}"

    async def visit() -> None:
        async with jetstream(front.nats_url) as js:
            for gzip in (False, True):
                async with stream(url, gzip=gzip, source="127.0.0.2") as client:
                    await client.one("snapshot")
                    for number in range(3):
                        await publish(js, line(f"{number}"))
                        assert len(await client.texts(number + 1)) == number + 1
                while sum(front.sessions()):
                    await asyncio.sleep(0.01)
            async with stream(url, source="127.0.0.2") as client:
                await client.one("snapshot")
                await publish(js, line("before"))
                assert await client.texts(1) == ["before"]
                victim = front.relays[front.sessions().index(1)]
                await asyncio.to_thread(victim.kill)
                await client.ended()
            await publish(js, line("meanwhile"))
            query = {} if path == "/sse" else {"cursor": client.messages[-1]["cursor"]}
            async with stream(url, last_id=client.last_id, source="127.0.0.2", query=query) as again:
                await publish(js, line("after"))
                assert await again.texts(2) == ["meanwhile", "after"]
                if path == "/sse":
                    async with stream(url, last_id=client.last_id, source="127.0.0.2") as third:
                        assert (await third.one("bye"))["code"] == 4429
                with pytest.raises(Rejected) as caught:
                    async with stream(url, source="127.0.0.2"):
                        pass
                assert caught.value.status == 429

    run(visit())


@pytest.mark.parametrize("kind", KINDS)
def test_a_quiet_link_is_not_cut(kind: str) -> None:
    """Every timeout on the session's path is at least twice the heartbeat interval."""
    text = CONFIGS[kind].read_text(encoding="utf-8")
    found = re.findall(
        r"^\s*(?:timeout (?:tunnel|client|server)|proxy_(?:read|send)_timeout) (\d+)s", text, re.M
    )
    assert len(found) == (3 if kind == "haproxy" else 2)
    assert all(int(seconds) >= 2 * HEARTBEAT for seconds in found)
