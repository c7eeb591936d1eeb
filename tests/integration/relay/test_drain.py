"""How a relay shuts down, as its clients, a load balancer and an operator see it."""

import asyncio
import contextlib
import re
import signal
import socket
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tickertape.contracts.messages import Bye
from tickertape.relay.transport.connections import RETRY_SPREAD_MS

from tests.support.clients.attacker import upgrade
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, jetstream, line, publish, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer, free_port

LONG: Final = ("--drain", "600")


def status_of(url: str) -> int:
    """Return the status of a page; 0 if the port is closed."""
    try:
        with urlopen(url, timeout=PATIENCE) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


def on_its_way_out(relay: Relay) -> None:
    """Stop a relay, and wait until its probes report not ready."""
    assert status_of(f"{relay.ops_url}/readyz") == 200
    relay.signal(signal.SIGTERM)
    eventually(lambda: status_of(f"{relay.ops_url}/readyz") == 503, "the relay says that it is not ready")


def test_clients_are_served_during_the_drain_delay(nats_server: NatsServer) -> None:
    """During the drain delay the relay reports not ready, but accepts clients and delivers events."""

    async def check(relay: Relay) -> None:
        await asyncio.to_thread(on_its_way_out, relay)
        assert await asyncio.to_thread(status_of, f"{relay.url}/health") == 503
        assert await asyncio.to_thread(status_of, f"{relay.ops_url}/livez") == 200
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            await publish(js, line("late"))
            assert await feed.texts(1) == ["late"]
            assert not only(feed.messages, Bye)
            relay.signal(signal.SIGTERM)
            assert await feed.closed() == 1001

    with Relay(nats_server.url, "--drain-delay", "600", *LONG) as relay:
        run(check(relay))
        assert relay.wait() == 0


def test_the_port_is_closed_during_the_drain(nats_server: NatsServer) -> None:
    """During the drain the port is closed, so that balancers use another relay; connected clients are told to
    retry.
    """

    async def check(relay: Relay) -> None:
        early = socket.create_connection(relay.host_port)
        async with follow(relay.ws_url), follow(relay.ws_url) as feed:
            await asyncio.to_thread(on_its_way_out, relay)
            await asyncio.to_thread(
                eventually, lambda: status_of(f"{relay.url}/health") == 0, "a closed port"
            )
            early.sendall(upgrade())
            answer = early.recv(10_000)
            early.close()
            assert answer.startswith(b"HTTP/1.1 503")
            assert b"retry-after: " in answer.lower()
            assert await asyncio.to_thread(status_of, f"{relay.ops_url}/readyz") == 503
            assert not only(feed.messages, Bye), "its turn comes later"
            relay.signal(signal.SIGTERM)
            assert await feed.closed() == 1001

    with Relay(nats_server.url, *LONG) as relay:
        run(check(relay))
        assert relay.wait() == 0


@pytest.mark.parametrize(("drain", "waves_ms"), [("0", 0), ("2", 1_600)])
def test_clients_leave_in_waves_and_reconnect_at_an_even_rate(
    nats_server: NatsServer, drain: str, waves_ms: int
) -> None:
    """Waves and reconnect delays together spread clients over at least 5 s, however short the drain is."""

    async def one(feed: FeedClient) -> int:
        assert await feed.closed() == 1001
        (bye,) = only(feed.messages, Bye)
        assert bye.code == 1001
        return bye.retry_after_ms or 0

    async def check(relay: Relay) -> list[int]:
        async with contextlib.AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(follow(relay.ws_url)) for _ in range(20)]
            relay.signal(signal.SIGTERM)
            return await asyncio.gather(*map(one, feeds))

    with Relay(nats_server.url, "--drain", drain) as relay:
        waits = run(check(relay))
        assert relay.wait() == 0
    assert waits == [500 + (RETRY_SPREAD_MS - waves_ms) * turn // 20 for turn in range(20)]
    (took,) = re.findall(r"drained in ([0-9.]+) s", "".join(relay.log))
    # The last of 16 waves starts after 15 sixteenths of the time, minus the rounding of the log.
    assert float(took) * 1000 >= waves_ms * 15 / 16 - 50


def test_a_second_signal_disconnects_all_clients(nats_server: NatsServer) -> None:
    """A second signal disconnects all remaining clients, and the relay exits without waiting for them."""

    async def check(relay: Relay) -> None:
        async with contextlib.AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(follow(relay.ws_url)) for _ in range(10)]
            relay.signal(signal.SIGTERM)
            await asyncio.to_thread(relay.until_logged, "shutting down")
            relay.signal(signal.SIGTERM)
            assert [await feed.closed() for feed in feeds] == [1001] * 10
            assert all(only(feed.messages, Bye) for feed in feeds)

    with Relay(nats_server.url, *LONG) as relay:
        run(check(relay))
        assert relay.wait() == 0


def test_a_ctrl_c_has_no_notice(nats_server: NatsServer) -> None:
    """A Ctrl-C skips the drain delay, since there is no load balancer to notice it."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            relay.signal(signal.SIGINT)
            assert await feed.closed() == 1001

    with Relay(nats_server.url, "--drain-delay", "600") as relay:
        run(check(relay))
        assert relay.wait() == 0


def test_a_relay_that_was_never_ready_just_ends() -> None:
    """A relay that was never ready skips the drain delay, since no balancer sent clients to it."""
    relay = Relay(f"nats://127.0.0.1:{free_port()}", "--drain-delay", "600", *LONG)
    relay.start(ready=False)
    try:
        relay.until_logged("unreachable, retrying")
        assert relay.stop() == 0
    finally:
        relay.close()


def test_the_drain_is_logged(nats_server: NatsServer) -> None:
    """The log has a line each for not ready, the number of clients, how many disconnected, and the exit."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            relay.signal(signal.SIGTERM)
            assert await feed.closed() == 1001

    with Relay(nats_server.url, "--drain-delay", "0.1", "--drain", "60") as relay:
        run(check(relay))
        assert relay.wait() == 0
    output = [text.split(None, 3)[3].strip() for text in relay.log[-4:]]
    assert output[0].startswith("draining: reporting not ready")
    assert output[1] == "shutting down: 60 s for 1 client to disconnect"
    assert output[2].startswith("drained in ")
    assert output[2].endswith(": 1 client disconnected, 0 connections aborted")
    assert output[3] == "stopped"
