"""``tickertape serve`` as an operator meets it: exit codes, one clear line, nothing left behind."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import nats
import pytest
from nats.js.api import StreamConfig
from tickertape.contracts.messages import Bye

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow, jetstream, line, publish, run
from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, Relay, command, eventually, refuse
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli import main as cli


def children(pid: int) -> list[int]:
    """Direct child processes."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listening(port: int) -> bool:
    """True when something answers on a loopback port."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


def port_of(url: str) -> int:
    """Port of an address."""
    return int(url.rpartition(":")[2])


def told(code: int, *arguments: str, **env: str) -> str:
    """Run ``serve`` that cannot run; its one line."""
    call = refuse if code == cli.EXIT_USAGE else run_command
    done = call("serve", "--port", "0", "--ops-port", "0", *arguments, **env)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line and " WARNING " not in line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[0].startswith("tickertape serve: ")
    assert len(lines[0]) < 400
    return lines[0]


def embedded(folder: Path, *options: str) -> Relay:
    """A relay with a NATS of its own, in a fresh interpreter: a start is what these tests are about."""
    relay = Relay(None, "--data-dir", str(folder), "--nats-port", "0", *options)
    relay.program = command()
    return relay


def test_a_relay_brings_its_own_nats(tmp_path: Path) -> None:
    """Others publish to it; what it holds is there after a restart."""

    async def check(relay: Relay, text: str) -> None:
        async with jetstream(relay.nats_url) as js, follow(relay.ws_url, since="earliest") as feed:
            await publish(js, line(text))
            await feed.until(lambda: text in str(feed.messages))

    with embedded(tmp_path / "data") as relay:
        run(check(relay, "first"))
        nats_port, pids = port_of(relay.nats_url), children(relay.pid)
        assert len(pids) == 1
        assert relay.stop() == 0
        assert not any(map(alive, pids))
        assert not any(map(listening, (nats_port, port_of(relay.url), port_of(relay.ops_url))))
        relay.start()

        async def both() -> None:
            async with jetstream(relay.nats_url) as js:
                assert (await js.stream_info("EVENTS")).state.messages == 1
            await check(relay, "second")

        run(both())


def test_its_own_nats_is_started_again(tmp_path: Path) -> None:
    """When it dies, clients stay, and events flow again."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            (pid,) = children(relay.pid)
            os.kill(pid, signal.SIGKILL)
            await feed.until(lambda: "disconnected" in str(feed.messages))
            await feed.until(lambda: "'connected'" in str(feed.messages))
            async with jetstream(relay.nats_url) as js:
                await publish(js, line("after"))
            assert await feed.texts(1) == ["after"]

    with embedded(tmp_path) as relay:
        run(check(relay))


def test_no_nats_is_left_behind_a_killed_relay(tmp_path: Path) -> None:
    """However the relay ends."""
    with embedded(tmp_path) as relay:
        (pid,) = children(relay.pid)
        relay.kill()
        eventually(lambda: not alive(pid), "nats-server ends with its relay")


def test_a_data_folder_has_one_relay(tmp_path: Path) -> None:
    """The second one says so, and the first goes on."""
    with embedded(tmp_path) as relay:
        text = told(1, "--data-dir", str(tmp_path), "--nats-port", "0")
        assert str(tmp_path) in text
        assert "in use by another relay" in text
        assert "--data-dir" in text
        assert listening(port_of(relay.url))
    told_after = embedded(tmp_path)
    with told_after:
        assert listening(port_of(told_after.url)), "a lock does not outlive its relay"


def test_a_data_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    """Such as one below a file."""
    (tmp_path / "file").write_text("x")
    assert "--data-dir" in told(1, "--data-dir", str(tmp_path / "file" / "data"), "--nats-port", "0")


@pytest.mark.parametrize("option", ["--port", "--ops-port", "--nats-port"])
def test_a_port_in_use_is_told(tmp_path: Path, option: str) -> None:
    """With the option to change."""
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        text = told(1, "--data-dir", str(tmp_path), "--nats-port", "0", option, str(port))
        assert str(port) in text
        assert option in text


def test_an_address_of_another_machine_is_told() -> None:
    """It cannot be listened on."""
    assert "203.0.113.1" in told(1, "--host", "203.0.113.1", "--insecure", "--nats-url", "nats://127.0.0.1:1")


def test_jetstream_off_is_told(tmp_path: Path) -> None:
    """With what to start the server with."""
    with NatsServer(tmp_path, jetstream=False) as server:
        text = told(1, "--nats-url", server.url)
        assert "JetStream is not available" in text or "not enabled" in text
        assert "jetstream" in text.lower()


def test_a_stream_with_other_settings_is_told(nats_server: NatsServer) -> None:
    """Which one, what it has, what it should have; it is left as it is."""

    async def prepare() -> None:
        async with jetstream(nats_server.url) as js:
            await js.add_stream(
                StreamConfig(name="EVENTS", subjects=["gateway.>", "system.>", "log.>", "checkpoint.>"])
            )

    async def look() -> bool | None:
        async with jetstream(nats_server.url) as js:
            return (await js.stream_info("EVENTS")).config.allow_direct

    run(prepare())
    text = told(1, "--nats-url", nats_server.url)
    assert "stream EVENTS has" in text
    assert "tickertape streams apply" in text
    assert not run(look())


def test_a_stream_that_has_our_subjects_is_told(nats_server: NatsServer) -> None:
    """NATS does not allow two."""

    async def prepare() -> None:
        nc = await nats.connect(nats_server.url)
        await nc.jetstream().add_stream(name="OLD", subjects=["log.>"])
        await nc.close()

    run(prepare())
    assert "overlap" in told(1, "--nats-url", nats_server.url)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--port", "abc"), "port"),
        (("--port", "70000"), "port"),
        (("--client-rate", "-1"), "client-rate"),
        (("--client-rate", "nan"), "client-rate"),
        (("--log-size", "0"), "log-size"),
        (("--subjects", "log..x"), "subjects"),
        (("--subjects", "orders.>"), "orders.>"),
        (("--nats-url", "127.0.0.1:4222"), "is not a valid address"),
        (("--nats-url", "http://127.0.0.1:4222"), "is not a valid address"),
        (("--auth", "maybe"), "auth"),
        (("--auth", "jwt"), "jwt"),
        (("--host", "0.0.0.0"), "--insecure"),
        (("--colour", "blue"), "colour"),
        (("surplus",), "surplus"),
    ],
)
def test_a_bad_option_is_a_usage_error(arguments: tuple[str, ...], named: str) -> None:
    """Exit code 2, and a line that names it."""
    assert named in told(2, *arguments)


def test_a_bad_variable_is_a_usage_error() -> None:
    """The environment is read like the command line."""
    assert "log-size" in told(2, TICKERTAPE_LOG_SIZE="many").replace("_", "-").lower()


def test_clients_are_told_that_the_relay_ends(nats_server: NatsServer) -> None:
    """``bye`` with 1001, spread over some seconds; then exit code 0, and no port is held."""

    async def check(relay: Relay) -> None:
        async with contextlib.AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(follow(relay.ws_url)) for _ in range(20)]
            relay.signal(signal.SIGTERM)
            waits = []
            for feed in feeds:
                assert await feed.closed() == 1001
                (bye,) = only(feed.messages, Bye)
                assert bye.code == 1001
                assert bye.retry_after_ms is not None
                waits.append(bye.retry_after_ms)
            assert len(set(waits)) > 10
            assert 0 < min(waits) < max(waits) < 20_000

    with Relay(nats_server.url, "--drain", "5") as relay:
        run(check(relay))
        assert relay.wait() == 0
        assert not listening(port_of(relay.url))
        assert not listening(port_of(relay.ops_url))
        assert not any("Traceback" in text or " ERROR " in text for text in relay.log)


def connect_and_stay(relay: Relay) -> socket.socket:
    """A client that reads nothing and answers nothing."""
    link = socket.create_connection(relay.host_port)
    link.sendall(
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    assert link.recv(1000).startswith(b"HTTP/1.1 101")
    return link


def test_a_client_that_does_not_leave_holds_nothing_up(nats_server: NatsServer) -> None:
    """The relay waits for as long as ``--drain`` says, and ends."""
    with Relay(nats_server.url, "--drain", "0.4") as relay, connect_and_stay(relay):
        assert relay.stop() == 0


def test_a_second_signal_ends_the_drain(nats_server: NatsServer) -> None:
    """Whoever presses Ctrl-C twice means it."""
    with Relay(nats_server.url, "--drain", "600") as relay, connect_and_stay(relay):
        relay.signal(signal.SIGINT)
        relay.until_logged("shutting down")
        relay.signal(signal.SIGINT)
        assert relay.wait() == 0


@pytest.mark.parametrize(
    "subjects", ["log.>,log.error.>,log.*.x", "log.*.x,log.error.>", "gateway.>,>,log.>"]
)
def test_overlapping_subjects_are_taken_in_once(nats_server: NatsServer, subjects: str) -> None:
    """NATS refuses filters that cover each other; an operator need not know that."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            await publish(js, line("one", "ERROR"))
            await publish(js, line("two", "INFO"))
            assert await feed.texts(2) == ["one", "two"]

    with Relay(nats_server.url, "--subjects", subjects) as relay:
        run(check(relay))


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_a_signal_while_its_own_nats_starts_is_heeded(tmp_path: Path, delay: float) -> None:
    """Whatever the relay is doing at that moment, it ends."""
    command = [
        sys.executable,
        "-m",
        "tickertape.cli.main",
        "serve",
        "--port",
        "0",
        "--ops-port",
        "0",
        "--nats-port",
        "0",
    ]
    relay = subprocess.Popen([*command, "--data-dir", str(tmp_path)], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        eventually((tmp_path / "nats.conf").exists, "its NATS is about to start")
        time.sleep(delay)  # into its start: that is where a signal used to be lost
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(PATIENCE) == 0
    finally:
        relay.kill()
        relay.wait()
