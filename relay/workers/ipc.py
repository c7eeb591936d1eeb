"""Messages between supervisor and worker, over a private pair of sockets.

The supervisor first sends the worker's configuration: the slot and all settings, including secrets, which
must not appear on a command line. Then both sides exchange lines of JSON: the supervisor requests paths of
the worker's ops routes, and the worker responds and reports its state. When the supervisor dies, the worker
reads end of file and exits.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import orjson
from starlette.types import ASGIApp
from tickertape.relay.metrics.snapshot import MetricsSnapshot

from tickertape.process.tasks import cancel_and_wait

log = logging.getLogger("tickertape.workers")

MAX_LINE: Final = 16 * 1024 * 1024
"""Maximum bytes of one line of JSON."""

_LENGTH_BYTES: Final = 8

SNAPSHOT_PATH: Final = "snapshot"
"""Path of a request for the metrics snapshot of the worker; not a path of the ops routes."""

EXIT_CONFIG: Final = 78
"""Exit code of a worker that cannot run: EX_CONFIG, which the Python interpreter does not use itself."""

ORPHAN_GRACE: Final = 0.2
"""Seconds from the first to the second signal to an orphaned worker, in which clients receive ``bye``."""

ORPHAN_KILL_AFTER: Final = 5.0
"""Seconds after which an orphaned worker is killed."""


def encode_worker_config(config: dict[str, Any]) -> bytes:
    """Encode the configuration of a worker, preceded by its length."""
    body = orjson.dumps(config)
    return len(body).to_bytes(_LENGTH_BYTES) + body


def read_worker_config(link: socket.socket) -> Any:
    """Read the configuration of this worker, and no byte beyond it.

    Raises:
        EOFError: the supervisor has exited.
    """
    # The bytes that follow are requests, which ``SupervisorChannel`` reads from the same socket later.
    return orjson.loads(_read_exactly(link, int.from_bytes(_read_exactly(link, _LENGTH_BYTES))))


def _read_exactly(link: socket.socket, size: int) -> bytes:
    data = link.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError("supervisor has exited")
    return data


class SupervisorChannel:
    """Worker's end of the connection to its supervisor; it replaces the server of the ops port.

    Attributes:
        address: placeholder for the address of the ops port, which only the supervisor has.
        should_exit: set to end ``run_until_stopped``.
    """

    address = "the supervisor's"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._app: ASGIApp | None = None
        self._read_metrics: Callable[[], MetricsSnapshot] = MetricsSnapshot
        self._ended = asyncio.Event()
        self._responses: set[asyncio.Task[None]] = set()
        self._listening = asyncio.create_task(self._read_messages(), name="supervisor")

    @classmethod
    async def open(cls, link: socket.socket) -> "SupervisorChannel":
        """Open a channel over the socket on which the configuration was received."""
        return cls(*await asyncio.open_unix_connection(sock=link, limit=MAX_LINE))

    @property
    def should_exit(self) -> bool:
        """Whether the channel has been asked to stop."""
        return self._ended.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._ended.set()

    def serve(self, app: ASGIApp, read_metrics: Callable[[], MetricsSnapshot]) -> "SupervisorChannel":
        """Serve the ops routes and metrics of this worker from now on, and return the channel."""
        self._app, self._read_metrics = app, read_metrics
        return self

    def send(self, **message: Any) -> None:
        """Send a message to the supervisor."""
        self._writer.write(orjson.dumps(message) + b"\n")

    async def run_until_stopped(self) -> None:
        """Respond to requests until ``should_exit`` is set."""
        await self._ended.wait()

    async def close(self) -> None:
        """Stop reading requests, flush pending messages, and close the connection."""
        # Cancelled first: closing then does not look like the end of the supervisor, to which
        # ``_read_messages`` responds with signals.
        await cancel_and_wait(self._listening)
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def _read_messages(self) -> None:
        try:
            while line := await self._reader.readline():
                if not line.endswith(b"\n"):
                    break  # the supervisor died while writing the line
                task = asyncio.create_task(self._respond(orjson.loads(line)), name="respond")
                # The event loop holds only weak references to tasks.
                self._responses.add(task)
                task.add_done_callback(self._responses.discard)
        except (OSError, ValueError):
            pass  # same as end of file; so is a line that is not JSON
        end_orphan()

    async def _respond(self, request: dict[str, Any]) -> None:
        status: int = 503
        body: MetricsSnapshot | str = ""
        if self._app is not None:
            try:
                if request["path"] == SNAPSHOT_PATH:
                    status, body = 200, self._read_metrics()
                else:
                    status, body = await fetch(self._app, request["path"])
            except Exception:
                # Always respond: unanswered requests count towards ``MAX_PENDING_REQUESTS`` permanently.
                log.exception("ops request %s failed", request["path"])
                status, body = 500, ""
        self.send(id=request["id"], status=status, body=body)


def end_orphan() -> None:
    """Stop this worker, whose supervisor has exited: gracefully first, then immediately."""
    loop = asyncio.get_running_loop()
    # By signal, so that the relay drains as it does for an operator; the second one ends the drain.
    os.kill(os.getpid(), signal.SIGTERM)
    loop.call_later(ORPHAN_GRACE, os.kill, os.getpid(), signal.SIGTERM)
    loop.call_later(ORPHAN_KILL_AFTER, os.kill, os.getpid(), signal.SIGKILL)


async def fetch(app: ASGIApp, path: str) -> tuple[int, str]:
    """Send a GET request to an ASGI application without a socket.

    Returns:
        The status and the body.
    """
    status, body = 500, bytearray()

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            body.extend(message.get("body", b""))

    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
        "client": None,
        "server": None,
        "state": {},
    }
    await app(scope, receive, send)
    return status, body.decode(errors="replace")
