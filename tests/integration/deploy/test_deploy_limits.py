"""What the shipped proxies let through: long tokens, and relays that reject a request now and then."""

import json
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

import pytest
from tickertape.contracts.messages import MAX_TOKEN
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.support.clients import forge
from tests.support.clients.attacker import bearer, claims, count, get
from tests.support.clients.feed_client import PATIENCE, follow, run
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.shipped_proxy import KINDS, proxy

JWT: Final = {
    "TICKERTAPE_AUTH": "jwt",
    "TICKERTAPE_JWT_ALGORITHM": "HS256",
    "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode(),
    "TICKERTAPE_TRUSTED_PROXIES": "127.0.0.1",
}


def longest_token() -> str:
    """Return a valid token of the maximum length, or two bytes less: base64 has no other lengths."""
    token, size = "", MAX_TOKEN // 2
    while len(grown := forge.token("HS256", claims(sub="long", padding="x" * size))) <= MAX_TOKEN:
        token, size = grown, size + max(1, (MAX_TOKEN - len(grown)) // 2)
    assert len(token) >= MAX_TOKEN - 2
    return token


@pytest.fixture(params=["direct", *KINDS])
def port(request: pytest.FixtureRequest, tmp_path: Path, nats_server: NatsServer) -> Iterator[int]:
    """Run a relay with tokens, directly or behind a proxy; yield the port."""
    with Relay(nats_server.url, **JWT) as relay:
        if request.param == "direct":
            yield relay.host_port[1]
        else:
            with proxy(request.param, tmp_path, (relay, relay)) as found:
                yield found


def test_a_long_token_is_accepted_wherever_it_is_sent(port: int) -> None:
    """The longest token is accepted in the header, as a subprotocol, in ``auth``, and by ``/events``."""
    token, url = longest_token(), f"ws://127.0.0.1:{port}/ws"

    async def check() -> None:
        async with follow(url, token=token):
            pass
        offered = [Subprotocol("tickertape.v1"), Subprotocol(f"bearer.{token}")]
        for subprotocols, message in ((offered, None), (None, {"type": "auth", "token": token})):
            async with connect(url, proxy=None, subprotocols=subprotocols) as link:
                if message is not None:
                    await link.send(json.dumps(message))
                assert json.loads(await link.recv())["type"] == "welcome"

    run(check())
    # With as many other headers as a relay accepts.
    request = get("/events", bearer(token), "Cookie: " + "c" * 15_000, f"X-Other: {'o' * 700}")
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as link:
        link.sendall(request)
        assert link.recv(12) == b"HTTP/1.1 200"


def test_nginx_keeps_a_relay_that_was_full_for_a_moment(tmp_path: Path, nats_server: NatsServer) -> None:
    """A relay that responds 503 is passed over for that request only, and gets the next client."""
    with (
        Relay(nats_server.url, "--max-connections", "1", TICKERTAPE_TRUSTED_PROXIES="127.0.0.1") as full,
        Relay(nats_server.url, TICKERTAPE_TRUSTED_PROXIES="127.0.0.1") as other,
        proxy("nginx", tmp_path, (full, other)) as port,
    ):
        url = f"ws://127.0.0.1:{port}/ws"
        # The requests that waited for nginx use up connections until they are closed.
        eventually(lambda: count(full, "sockets") == 0, "the full relay has room")

        async def check() -> None:
            async with AsyncExitStack() as stack:
                async with follow(full.ws_url):
                    for _ in range(3):
                        await stack.enter_async_context(follow(url))
                    # The relay with fewer sessions was tried first.
                    assert count(full, "rejected_total", limit="connections") > 0
                    assert count(other, "connections") == 3
                eventually(lambda: count(full, "sockets") == 0, "the full relay has room")
                await stack.enter_async_context(follow(url))
                assert count(full, "connections") == 1

        run(check())
