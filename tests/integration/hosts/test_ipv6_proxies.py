"""The shipped proxies with their lines for IPv6, in front of a relay on ::1."""

import asyncio
from pathlib import Path
from urllib.request import urlopen

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from tests.support.clients.feed_client import follow, jetstream, line, publish
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.servers.loopback import has_ipv6
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.shipped_proxy import KINDS, proxy

pytestmark = pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")

LISTED = "http://[2001:db8::1]:8080"


@pytest.mark.parametrize("kind", KINDS)
def test_a_session_passes_over_ipv6(kind: str, nats_server: NatsServer, tmp_path: Path) -> None:
    """Page and feed are reached by an address in brackets, by which the relay knows its own page."""
    options = ("--host", "::1", "--ops-host", "::1", "--trusted-proxies", "::1", "--allowed-origins", LISTED)

    async def status(url: str, origin: str) -> int:
        try:
            async with connect(url, origin=Origin(origin), proxy=None):
                return 101
        except InvalidStatus as rejected:
            return rejected.response.status_code

    async def visit(url: str, own: str) -> None:
        async with follow(url) as client, jetstream(nats_server.url) as js:
            await publish(js, line("over IPv6"))
            assert await client.texts(1) == ["over IPv6"]
        assert [await status(url, origin) for origin in (own, LISTED)] == [101, 101]
        assert [await status(url, own.replace(*swap)) for swap in (("::1", "::2"), ("[::1]", "::1"))] == [
            403,
            403,
        ]

    with Relay(nats_server.url, *options) as relay, proxy(kind, tmp_path, (relay, relay), ipv6=True) as port:
        with urlopen(f"http://[::1]:{port}/", timeout=PATIENCE) as page:
            assert page.status == 200
        asyncio.run(visit(f"ws://[::1]:{port}/ws", f"http://[::1]:{port}"))
        assert relay.stop() == 0
