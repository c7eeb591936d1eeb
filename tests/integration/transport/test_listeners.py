"""A program that cannot listen, or stops listening, exits with one line, whichever port is affected."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from tickertape.contracts.messages import Bye

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import follow
from tests.support.clients.feed_client import run as play
from tests.support.paths import ROOT
from tests.support.programs.lost_listener import lose_listener
from tests.support.programs.relay_process import PATIENCE, Relay, command, environment, eventually, run
from tests.support.programs.worker_desk import slots
from tests.support.servers.nats_server import NatsServer, free_port


def one_line(stderr: str, program: str = "serve") -> str:
    """Return the line for the operator, the only one besides the log."""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if line.startswith(f"tickertape {program}: ")]
    assert len(lines) == 1, stderr
    return lines[0]


SAME = {
    "the same": [],
    "any address": ["--host", "0.0.0.0", "--insecure"],
    "any address for metrics": ["--ops-host", "0.0.0.0"],
    "a name": ["--ops-host", "localhost"],
    "another spelling": ["--ops-host", "127.1"],
    "any address of both families": ["--ops-host", "::"],
    "mapped": ["--ops-host", "::ffff:127.0.0.1"],
}


@pytest.mark.parametrize(
    ("name", "workers"), [*((name, 1) for name in SAME), ("the same", 2), ("any address", 2)]
)
def test_one_port_for_two_servers_is_an_error(name: str, workers: int) -> None:
    """One port for two servers is an error in any spelling of the address, and the error names the option."""
    port = str(free_port())
    received = run(
        "serve", "--port", port, "--ops-port", port, "--workers", str(workers), *SAME[name],
        "--nats-url", "nats://127.0.0.1:1",
    )  # fmt: skip
    assert received.returncode == 1
    assert "ready" not in received.stdout
    assert one_line(received.stderr) == (
        f"tickertape serve: --port and --ops-port are both {port}; choose another --ops-port"
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("option", ["--port", "--ops-port"])
def test_the_embedded_nats_needs_a_port_of_its_own(tmp_path: Path, option: str, workers: int) -> None:
    """The embedded NATS server's port cannot be used for the relay, and vice versa."""
    port = str(free_port())
    ports = {"--port": "0", "--ops-port": "0", "--nats-port": port} | {option: port}
    received = run(
        "serve", *(part for pair in ports.items() for part in pair), "--workers", str(workers),
        "--data-dir", str(tmp_path),
    )  # fmt: skip
    assert received.returncode == 1
    assert "ready" not in received.stdout
    assert port in one_line(received.stderr)


def test_a_port_is_taken_before_the_relay_is_ready(nats_server: NatsServer) -> None:
    """The port is bound before the relay reports ready, so two relays cannot both get it."""
    with Relay(nats_server.url) as relay:
        port = relay.url.rpartition(":")[2]
        for workers in ("1", "2"):
            received = run(
                "serve",
                "--port",
                port,
                "--ops-port",
                "0",
                "--nats-url",
                nats_server.url,
                "--workers",
                workers,
            )
            assert received.returncode == 1
            assert f"127.0.0.1:{port} is already in use" in one_line(received.stderr)


@pytest.mark.parametrize("which", ["main", "ops"])
def test_a_relay_that_loses_its_listener_exits(nats_server: NatsServer, which: str) -> None:
    """A relay that loses its listener exits with one line and code 1, after notifying its clients."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url) as feed:
            await feed.until(lambda: bool(feed.messages))
            url = relay.url if which == "main" else relay.ops_url
            lose_listener(relay.pid, int(url.rpartition(":")[2]))
            bye = await feed.one(Bye)
            assert bye.code == 1001
            assert only(feed.messages, Bye) == [bye]

    with Relay(nats_server.url) as relay:
        address = (relay.url if which == "main" else relay.ops_url).rpartition("/")[2]
        play(check(relay))
        assert relay.wait() == 1
        assert f"no longer listening on {address}" in one_line("".join(relay.log))


def test_a_supervisor_that_loses_its_listener_exits(nats_server: NatsServer) -> None:
    """A supervisor that loses its listener exits with its workers."""
    with Relay(nats_server.url, "--workers", "2") as relay:
        pids = [slot["pid"] for slot in slots(relay)]
        lose_listener(relay.pid, int(relay.ops_url.rpartition(":")[2]))
        assert relay.wait() == 1
        assert "no longer listening on" in one_line("".join(relay.log))
        for pid in pids:
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)


def test_a_worker_that_loses_its_listener_is_replaced(nats_server: NatsServer) -> None:
    """A worker that loses its listener is replaced, with the reason in the log, while the others continue."""
    with Relay(nats_server.url, "--workers", "2") as relay:
        first = slots(relay)[0]["pid"]
        lose_listener(first, int(relay.url.rpartition(":")[2]))
        eventually(lambda: slots(relay)[0]["pid"] not in (None, first), "another worker is there")
        relay.until_logged("no longer listening on")
        assert relay.stop() == 0


@contextmanager
def producer(*arguments: str, ready: str) -> Iterator[tuple["subprocess.Popen[str]", list[str]]]:
    """Run a producer until it prints a text; return its output."""
    output: list[str] = []
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        for line in process.stderr:
            output.append(line)
            if ready in line:
                break
        yield process, output
        output.extend(process.stderr)
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.fixture
def producers(tmp_path: Path) -> dict[str, list[str]]:
    """Return command lines to which a metrics port is added."""
    config = tmp_path / "gateways.yaml"
    config.write_text(
        "gateways:\n  - {id: a, type: ctp, probes: [{kind: tcp, address: '127.0.0.1:1', interval: 60s}]}\n"
    )
    (tmp_path / "a.log").write_text("a line\n")
    state = ["--state-dir", str(tmp_path / "state")]
    return {
        "monitor": ["monitor", "--gateways", str(config)],
        "ship": ["ship", str(tmp_path / "a.log"), *state],
    }


READY = {"monitor": "monitoring 1 gateway", "ship": "connected to NATS"}


@pytest.mark.parametrize("program", READY)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0.0.0.0"])
def test_a_producer_whose_metrics_cannot_be_served_ends(
    nats_server: NatsServer, producers: dict[str, list[str]], program: str, host: str
) -> None:
    """A producer that cannot serve its metrics exits with one line and code 1."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        received = run(
            *producers[program], "--nats-url", nats_server.url, "--metrics-host", host, "--metrics-port", port
        )
    assert received.returncode == 1
    assert "Traceback" not in received.stderr
    last = received.stderr.splitlines()[-1]
    assert last.startswith(f"tickertape {program}: {host}:{port} for metrics is already in use")
    assert "--metrics-port" in last


@pytest.mark.parametrize("program", READY)
def test_a_producer_whose_metrics_are_not_served_any_more_ends(
    nats_server: NatsServer, producers: dict[str, list[str]], program: str
) -> None:
    """A producer that loses its metrics listener exits with one line and code 1."""
    port = free_port()
    arguments = [*producers[program], "--nats-url", nats_server.url, "--metrics-port", str(port)]
    with producer(*arguments, ready=READY[program]) as (process, output):
        eventually(lambda: _served(port), "metrics are served")
        lose_listener(process.pid, port)
        assert process.wait(PATIENCE) == 1
    lines = [line for line in output if "no longer listening on" in line]
    assert len(lines) == 1
    assert "Traceback" not in "".join(output)


def _served(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            return bool(page.status == 200)
    except OSError:
        return False


@pytest.mark.parametrize("workers", [1, 2])
def test_a_relay_whose_nats_cannot_be_started_again_ends(tmp_path: Path, workers: int) -> None:
    """A relay exits if another program, even one that responds like NATS, has taken its embedded server's
    port.
    """
    relay = Relay(None, "--data-dir", str(tmp_path), "--nats-port", "0", "--workers", str(workers))
    with relay:
        port = int(relay.nats_url.rpartition(":")[2])
        children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()
        server = next(int(pid) for pid in children if "nats-server" in _command_of(int(pid)))
        with socket.socket() as thief:
            thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            os.kill(server, signal.SIGKILL)
            eventually(lambda: _bound(thief, port), "the port is free")
            assert relay.wait() == 1
        line = one_line("".join(relay.log))
        assert f"port {port} for the embedded NATS server is not available" in line
        assert "--nats-port" in line


def _command_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def _bound(thief: socket.socket, port: int) -> bool:
    try:
        thief.bind(("127.0.0.1", port))
    except OSError:
        return False
    thief.listen()
    return True


def test_a_nats_that_ends_is_started_again(tmp_path: Path) -> None:
    """An embedded NATS server that exits is restarted while its port is free."""
    with Relay(None, "--data-dir", str(tmp_path), "--nats-port", "0") as relay:
        for _ in range(2):
            children = Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split()
            server = next(int(pid) for pid in children if "nats-server" in _command_of(int(pid)))
            os.kill(server, signal.SIGKILL)
            eventually(lambda: _upstream(relay) == 503, "NATS is not there")
            eventually(lambda: _upstream(relay) == 200, "NATS is there again")
        assert relay.stop() == 0


def _upstream(relay: Relay) -> int:
    time.sleep(0.05)
    try:
        with urlopen(f"{relay.ops_url}/readyz") as page:
            return int(page.status)
    except OSError as error:
        return int(getattr(error, "code", 0))
