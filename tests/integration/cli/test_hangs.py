"""Programs end although something hangs: their cleanup, the reader of their output, or the process itself for
a while.
"""

import contextlib
import fcntl
import os
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tickertape.contracts.events import SystemLog

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.ending_desk import processes_of
from tests.support.programs.relay_process import Relay, command, environment, eventually
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape import SyncPublisher

HANGING: dict[str, tuple[str, ...]] = {
    """
from tickertape.relay import relay, server
async def hang(self, loaded):
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
async def fail(*_):
    raise RuntimeError("injected")
relay.Components.run, server.drain, server.END_GRACE = hang, fail, 3.0
""": (),
    """
from tickertape.relay.workers import supervisor
real = supervisor.Supervisor._wait_for_end
async def fail(self, tasks):
    await real(self, tasks)
    raise RuntimeError("injected")
supervisor.Supervisor._wait_for_end = fail
""": ("--workers", "2"),
}

PROGRAM = """\
import asyncio, contextlib, sys
from tickertape.process.startup import prepare
prepare(sys.argv[1:])
{faults}
from tickertape.cli.main import main
sys.exit(main())
"""


def status_of(url: str) -> int:
    """Return the status of a page; 0 if the port is closed."""
    try:
        with urllib.request.urlopen(url, timeout=PATIENCE) as page:
            return int(page.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


@pytest.mark.parametrize(("faults", "options"), HANGING.items(), ids=["one process", "workers"])
def test_liveness_fails_when_the_main_task_is_gone(
    faults: str, options: tuple[str, ...], nats_server: NatsServer
) -> None:
    """``/livez`` fails, or its port is closed, and the process exits although its cleanup hangs."""
    ops = free_port()
    mark = f"hangs-{os.getpid()}-{ops}"
    relay = subprocess.Popen(
        [
            sys.executable, "-c", PROGRAM.format(faults=faults), "serve", "--port", "0", "--ops-port",
            str(ops), "--nats-url", nats_server.url, *options,
        ],
        cwd=ROOT, env=environment(HANGS=mark), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    url = f"http://127.0.0.1:{ops}/livez"
    try:
        eventually(lambda: status_of(url) == 200, "the relay is alive")
        relay.send_signal(signal.SIGTERM)
        eventually(lambda: status_of(url) != 200, "the relay is not alive")
        _, err = relay.communicate(timeout=PATIENCE)
        assert relay.returncode == 1
        if not options:
            assert "did not end within 3 s; exiting with code 1; pending tasks: " in err
            assert "components" in err
        eventually(lambda: not processes_of(mark), "no worker is left")
    finally:
        relay.kill()
        relay.communicate()


@contextlib.contextmanager
def stalled(*arguments: str, stream: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Run a program whose output is not read; yield it, and the end of the pipe that it writes to."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=writer if stream == "stdout" else subprocess.DEVNULL,
        stderr=writer if stream == "stderr" else subprocess.DEVNULL,
    )
    try:
        yield process, writer
    finally:
        process.kill()
        process.wait()
        os.close(reader)
        os.close(writer)


def is_full(pipe: int) -> bool:
    """Return whether a pipe has no room."""
    poll = select.poll()
    poll.register(pipe, select.POLLOUT)
    return not poll.poll(0)


def test_a_relay_whose_log_is_not_read_ends(nats_server: NatsServer) -> None:
    """A log that is not read stops neither the relay nor its end."""
    ops = free_port()
    options = ("serve", "--port", "0", "--ops-port", str(ops), "--nats-url", nats_server.url)
    with stalled(*options, stream="stderr") as (relay, pipe):
        url = f"http://127.0.0.1:{ops}"
        eventually(lambda: status_of(f"{url}/readyz") == 200, "the relay is ready")

        def fill() -> bool:
            relay.send_signal(signal.SIGHUP)  # each reload logs a line
            assert status_of(f"{url}/livez") == 200
            return is_full(pipe)

        eventually(fill, "the pipe is full")
        for _ in range(5):
            relay.send_signal(signal.SIGHUP)
            assert status_of(f"{url}/livez") == 200
        relay.send_signal(signal.SIGTERM)
        assert relay.wait(PATIENCE) == 0


def test_a_command_whose_result_is_not_read_ends(nats_server: NatsServer) -> None:
    """``tail`` waits for a slow reader, and ends when it is told to."""
    with Relay(nats_server.url) as relay, SyncPublisher(nats_server.url, name="desk") as publisher:
        for number in range(200):
            publisher.publish(SystemLog(level="INFO", message=f"{number} {'x' * 100}", source="desk"))
        with stalled("tail", "--url", relay.ws_url, "--since", "1h", stream="stdout") as (tail, pipe):
            eventually(lambda: is_full(pipe), "the pipe is full")
            tail.send_signal(signal.SIGTERM)
            assert tail.wait(PATIENCE) == 0


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon, and check that it ends with code 0."""
    process = subprocess.Popen(
        command(*arguments), cwd=ROOT, env=environment(),
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()


def test_stopped_and_continued_programs_recover(nats_server: NatsServer, tmp_path: Path) -> None:
    """SIGSTOP and SIGCONT, with a restart of NATS in between: nothing is lost, and all of them work again."""
    log, config = tmp_path / "a.log", tmp_path / "gateways.yaml"
    log.write_text("INFO before\n")
    probe = {"kind": "tcp", "address": f"127.0.0.1:{nats_server.port}"}
    gateway = {"id": "a", "type": "b", "probes": [probe]}
    config.write_text(yaml.safe_dump({"defaults": {"interval": "100ms"}, "gateways": [gateway]}))
    nats = ("--nats-url", nats_server.url)
    ship = ("ship", str(log), "--state-dir", str(tmp_path / "ship"), "--health-interval", "0.2", *nats)
    monitor = ("monitor", "--gateways", str(config), "--id", "m", "--health-interval", "0.2", *nats)

    with Relay(nats_server.url) as relay, running(*ship) as shipper, running(*monitor) as watcher:

        def seen(subject: str, text: str = "") -> bool:
            return text.encode() in history(relay, subject)

        eventually(lambda: seen("log.>", "before"), "a line is shipped")
        eventually(lambda: seen("gateway.status.>", "HEALTHY"), "the gateway is healthy")
        pids = [relay.pid, shipper.pid, watcher.pid]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        nats_server.stop()
        nats_server.start()
        with SyncPublisher(nats_server.url, name="desk") as publisher:
            publisher.publish(SystemLog(level="INFO", message="meanwhile", source="desk"))
        with log.open("a") as file:
            file.write("INFO after\n")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        eventually(lambda: seen("log.>", "meanwhile"), "the relay has what it missed")
        eventually(lambda: seen("log.>", "after"), "the shipper continues")
        reports = health_reports(relay, "system.health.monitor.m")
        eventually(
            lambda: health_reports(relay, "system.health.monitor.m") > reports, "the monitor continues"
        )
        assert relay.stop() == 0


def health_reports(relay: Relay, subject: str) -> int:
    """Return the number of health events of a program."""
    return history(relay, subject).count(b'"event_type":"system_health"')


def history(relay: Relay, subject: str) -> bytes:
    """Return the newest events of a subject; nothing while NATS is unreachable."""
    query = f"since=1h&subjects={subject}&order=newest"
    try:
        with urllib.request.urlopen(f"{relay.url}/events?{query}", timeout=PATIENCE) as page:
            return bytes(page.read())
    except urllib.error.HTTPError as error:
        with error:
            if error.code != 503:
                raise
        return b""
