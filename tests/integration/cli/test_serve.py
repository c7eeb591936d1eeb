"""``tickertape serve`` as operators use it: exit codes, one clear error line, and nothing left behind."""

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

from tests.support.clients.attacker import upgrade
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow, jetstream, line, publish, run
from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, Relay, command, eventually, expect_rejection
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.cli import main as cli


def children(pid: int) -> list[int]:
    """Return the direct child processes of a process."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def listening(port: int) -> bool:
    """Return whether a loopback port accepts connections."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
        return True
    return False


def port_of(url: str) -> int:
    """Return the port of a URL."""
    return int(url.rpartition(":")[2])


def failure_line(code: int, *arguments: str, **env: str) -> str:
    """Run a ``serve`` that must fail with an exit code, and return its one line of error."""
    call = expect_rejection if code == cli.EXIT_USAGE else run_command
    done = call("serve", "--port", "0", "--ops-port", "0", *arguments, **env)
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if " INFO " not in line and " WARNING " not in line]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert lines[0].startswith("tickertape serve: ")
    assert len(lines[0]) < 400
    return lines[0]


def relay_with_nats(folder: Path, *options: str) -> Relay:
    """Return a relay with an embedded NATS server, in a fresh interpreter, to test its actual start."""
    relay = Relay(None, "--data-dir", str(folder), "--nats-port", "0", *options)
    relay.program = command()
    return relay


def test_a_relay_starts_an_embedded_nats(tmp_path: Path) -> None:
    """Other programs can publish to the embedded NATS server, and its events survive a restart."""

    async def check(relay: Relay, text: str) -> None:
        async with jetstream(relay.nats_url) as js, follow(relay.ws_url, since="earliest") as feed:
            await publish(js, line(text))
            await feed.until(lambda: text in str(feed.messages))

    with relay_with_nats(tmp_path / "data") as relay:
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


def test_the_embedded_nats_is_restarted(tmp_path: Path) -> None:
    """An embedded NATS server that dies is restarted; clients stay connected and receive events again."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            (pid,) = children(relay.pid)
            os.kill(pid, signal.SIGKILL)
            await feed.until(lambda: "disconnected" in str(feed.messages))
            await feed.until(lambda: "'connected'" in str(feed.messages))
            async with jetstream(relay.nats_url) as js:
                await publish(js, line("after"))
            assert await feed.texts(1) == ["after"]

    with relay_with_nats(tmp_path) as relay:
        run(check(relay))


def test_the_embedded_nats_ends_with_a_killed_relay(tmp_path: Path) -> None:
    """The embedded NATS server ends with its relay, even after a SIGKILL."""
    with relay_with_nats(tmp_path) as relay:
        (pid,) = children(relay.pid)
        relay.kill()
        eventually(lambda: not alive(pid), "nats-server ends with its relay")


def test_a_data_folder_has_one_relay(tmp_path: Path) -> None:
    """A second relay in the same data folder is rejected, and the first keeps running."""
    with relay_with_nats(tmp_path) as relay:
        text = failure_line(1, "--data-dir", str(tmp_path), "--nats-port", "0")
        assert str(tmp_path) in text
        assert "in use by another relay" in text
        assert "--data-dir" in text
        assert listening(port_of(relay.url))
    next_relay = relay_with_nats(tmp_path)
    with next_relay:
        assert listening(port_of(next_relay.url)), "a lock does not outlive its relay"


def test_an_unusable_data_folder_is_reported(tmp_path: Path) -> None:
    """A data folder that cannot be created is reported with its option."""
    (tmp_path / "file").write_text("x")
    assert "--data-dir" in failure_line(1, "--data-dir", str(tmp_path / "file" / "data"), "--nats-port", "0")


@pytest.mark.parametrize("option", ["--port", "--ops-port", "--nats-port"])
def test_a_port_in_use_is_reported(tmp_path: Path, option: str) -> None:
    """A port in use is reported with the option that changes it."""
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        text = failure_line(1, "--data-dir", str(tmp_path), "--nats-port", "0", option, str(port))
        assert str(port) in text
        assert option in text


def test_an_address_of_another_machine_is_reported() -> None:
    """A host address of another machine is reported, because nothing can listen on it."""
    assert "203.0.113.1" in failure_line(
        1, "--host", "203.0.113.1", "--insecure", "--nats-url", "nats://127.0.0.1:1"
    )


def test_disabled_jetstream_is_reported(tmp_path: Path) -> None:
    """Disabled JetStream is reported with how to enable it."""
    with NatsServer(tmp_path, jetstream=False) as server:
        text = failure_line(1, "--nats-url", server.url)
        assert "JetStream is not available" in text or "not enabled" in text
        assert "jetstream" in text.lower()


def test_a_stream_with_other_settings_is_reported(nats_server: NatsServer) -> None:
    """A stream with other settings is reported with the command that changes them, and left unchanged."""

    async def prepare() -> None:
        async with jetstream(nats_server.url) as js:
            await js.add_stream(
                StreamConfig(name="EVENTS", subjects=["gateway.>", "system.>", "log.>", "checkpoint.>"])
            )

    async def allows_direct() -> bool | None:
        async with jetstream(nats_server.url) as js:
            return (await js.stream_info("EVENTS")).config.allow_direct

    run(prepare())
    text = failure_line(1, "--nats-url", nats_server.url)
    assert "stream EVENTS has" in text
    assert "tickertape streams apply" in text
    assert not run(allows_direct())


def test_a_stream_with_the_same_subjects_is_reported(nats_server: NatsServer) -> None:
    """A stream with the contract's subjects is reported, because NATS does not allow overlapping streams."""

    async def prepare() -> None:
        nc = await nats.connect(nats_server.url)
        await nc.jetstream().add_stream(name="OLD", subjects=["log.>"])
        await nc.close()

    run(prepare())
    assert "overlap" in failure_line(1, "--nats-url", nats_server.url)


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
    """An invalid option ends with exit code 2 and one line that names it."""
    assert named in failure_line(2, *arguments)


def test_a_bad_variable_is_a_usage_error() -> None:
    """Environment variables are validated like options."""
    assert "log-size" in failure_line(2, TICKERTAPE_LOG_SIZE="many").replace("_", "-").lower()


def test_clients_receive_bye_when_the_relay_ends(nats_server: NatsServer) -> None:
    """Clients receive ``bye`` with code 1001 and different retry delays; the relay then exits with 0."""

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


def connect_idle(relay: Relay) -> socket.socket:
    """Connect a client that neither reads nor answers anything."""
    link = socket.create_connection(relay.host_port)
    link.sendall(upgrade())
    assert link.recv(1000).startswith(b"HTTP/1.1 101")
    return link


def test_a_client_that_does_not_leave_cannot_delay_the_end(nats_server: NatsServer) -> None:
    """A client that does not leave cannot delay the end of the relay beyond ``--drain``."""
    with Relay(nats_server.url, "--drain", "0.4") as relay, connect_idle(relay):
        assert relay.stop() == 0


def test_a_second_signal_ends_the_drain(nats_server: NatsServer) -> None:
    """A second Ctrl-C ends the drain immediately."""
    with Relay(nats_server.url, "--drain", "600") as relay, connect_idle(relay):
        relay.signal(signal.SIGINT)
        relay.until_logged("shutting down")
        relay.signal(signal.SIGINT)
        assert relay.wait() == 0


@pytest.mark.parametrize(
    "subjects", ["log.>,log.error.>,log.*.x", "log.*.x,log.error.>", "gateway.>,>,log.>"]
)
def test_overlapping_subjects_are_ingested_once(nats_server: NatsServer, subjects: str) -> None:
    """Overlapping ``--subjects`` deliver each event once, although NATS rejects overlapping filters."""

    async def check(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url) as feed:
            await publish(js, line("one", "ERROR"))
            await publish(js, line("two", "INFO"))
            assert await feed.texts(2) == ["one", "two"]

    with Relay(nats_server.url, "--subjects", subjects) as relay:
        run(check(relay))


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_a_signal_while_the_embedded_nats_starts_ends_the_relay(tmp_path: Path, delay: float) -> None:
    """A signal during the start of the embedded NATS server ends the relay."""
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
        eventually((tmp_path / "nats.conf").exists, "the NATS server is about to start")
        time.sleep(delay)  # signals during the server's start are easily lost
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(PATIENCE) == 0
    finally:
        relay.kill()
        relay.wait()
