"""A supervisor and its workers start and stop together."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tickertape.contracts.messages import Bye

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow, jetstream, line, publish, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.programs.worker_desk import alive, children, kill_worker, pids, ready, slots
from tests.support.servers.nats_server import NatsServer, free_port


@pytest.fixture(scope="module")
def nats_of_all(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run one server for the module."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


def relays(nats: NatsServer | None, *options: str, **env: str) -> Relay:
    """Run a relay with two workers."""
    return Relay(nats.url if nats else None, "--workers", "2", *options, **env)


def taken(url: str) -> bool:
    """Return whether an address is listened on."""
    host, _, port = url.partition("://")[2].rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=PATIENCE):
        return True
    return False


def is_ready(relay: Relay) -> bool:
    """Return whether the relay reports to be ready."""
    try:
        with urlopen(f"{relay.ops_url}/readyz", timeout=PATIENCE):
            return True
    except HTTPError as error:
        error.close()
        return False


def test_a_drain_in_good_order(nats_of_all: NatsServer) -> None:
    """On SIGTERM every client receives ``bye``, and no process, port or error is left."""

    async def check(relay: Relay) -> None:
        async with contextlib.AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(follow(relay.ws_url)) for _ in range(20)]
            relay.signal(signal.SIGTERM)
            for feed in feeds:
                assert await feed.closed() == 1001
                assert len(only(feed.messages, Bye)) == 1

    with relays(nats_of_all, "--drain", "5") as relay:
        workers = pids(relay)
        run(check(relay))
        assert relay.wait() == 0
        assert not any(map(alive, workers))
        assert not taken(relay.url)
        assert not taken(relay.ops_url)
        assert not any("Traceback" in text or " ERROR " in text for text in relay.log)


def test_a_second_signal_ends_immediately(nats_of_all: NatsServer) -> None:
    """A second Ctrl-C ends the drain immediately."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url):
            relay.signal(signal.SIGINT)
            relay.until_logged("shutting down")
            relay.signal(signal.SIGINT)
            assert relay.wait() == 0

    with relays(nats_of_all, "--drain", "600") as relay:
        run(check(relay))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_get_both_signals_however_late(nats_of_all: NatsServer, number: signal.Signals) -> None:
    """A worker that did not run between the two signals ends its drain nevertheless."""

    async def check(relay: Relay) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(20):  # who are disconnected in waves
                await stack.enter_async_context(follow(relay.ws_url))
            workers = pids(relay)
            for pid in workers:
                os.kill(pid, signal.SIGSTOP)
            relay.signal(number)
            await asyncio.to_thread(eventually, lambda: not is_ready(relay), "the supervisor stops")
            relay.signal(number)
            await asyncio.sleep(0.2)
            for pid in workers:
                os.kill(pid, signal.SIGCONT)
            assert relay.wait() == 0

    with relays(nats_of_all, "--drain", "600") as relay:
        run(check(relay))


def test_nothing_is_left_behind_a_killed_supervisor(tmp_path: Path) -> None:
    """Workers and the embedded NATS exit when the supervisor is killed; clients are notified; a restart
    works.
    """

    async def still_there(relay: Relay) -> None:
        async with jetstream(relay.nats_url) as js, follow(relay.ws_url) as feed:
            await publish(js, line("through"))
            assert await feed.texts(1) == ["through"]

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            relay.signal(signal.SIGKILL)
            assert await feed.closed() == 1001
            assert len(only(feed.messages, Bye)) == 1

    with relays(None, "--data-dir", str(tmp_path), "--nats-port", "0") as relay:
        workers, all_of_them = pids(relay), children(relay.pid)
        assert len(all_of_them) == 3
        assert set(workers) < set(all_of_them)
        run(check(relay))
        relay.wait()
        eventually(lambda: not any(map(alive, all_of_them)), "all processes have ended")
        assert not taken(relay.url)
        relay.start()
        run(still_there(relay))
        kill_worker(relay, 1)
        run(still_there(relay))


def test_not_ready_without_nats() -> None:
    """Without NATS it waits, listens and reports not ready, like a single relay."""
    relay = relays(None, "--nats-url", f"nats://127.0.0.1:{free_port()}")
    try:
        relay.start(ready=False)
        assert not ready(relay)
        eventually(lambda: all(slot["pid"] for slot in slots(relay)), "both workers run")
        assert relay.stop() == 0
    finally:
        relay.close()


def received(*arguments: str, **env: str) -> str:
    """Run a supervisor that cannot start; return its only line."""
    done = run_command("serve", "--workers", "2", "--ops-port", "0", *arguments, **env)
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line and " ERROR " not in line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("tickertape serve: ")
    return lines[0]


def test_a_setting_that_no_relay_can_run_with(nats_of_all: NatsServer, tmp_path: Path) -> None:
    """An invalid setting is one line with exit code 1, not a line per worker, repeatedly."""
    missing = str(tmp_path / "none.pem")
    output = received(
        "--port", "0", "--nats-url", nats_of_all.url,
        "--auth", "jwt", "--jwt-algorithm", "EdDSA", "--jwt-key-file", missing,
    )  # fmt: skip
    assert missing in output
