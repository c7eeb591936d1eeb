"""What supervisor and worker say to each other, over a pair of sockets that nobody else has.

The supervisor begins with a brief: the slot and all settings, secrets too, which is why they are on no
command line. Then lines of JSON go both ways: it asks for a page of the worker's ops port, the worker answers
and tells how it is doing. When the supervisor dies, however it does, the worker reads the end, and ends too.
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
_LENGTH: Final = 8

SNAPSHOT_PATH: Final = "reading"
"""What is asked for in the place of a page: all numbers of the worker, as data."""

EXIT_CONFIG: Final = 78
"""Exit code of a worker that no relay can be: EX_CONFIG, and no interpreter ends with it by itself."""

ORPHAN_GRACE: Final = 0.2
"""Seconds from the first signal to the second of a worker without a supervisor; clients get their ``bye``."""

ORPHAN_END: Final = 5.0
"""Seconds after which it is ended whatever it does."""


def packed(brief: dict[str, Any]) -> bytes:
    """A brief as it is sent."""
    body = orjson.dumps(brief)
    return len(body).to_bytes(_LENGTH) + body


def read_worker_config(link: socket.socket) -> Any:
    """Read the brief, and not a byte more.

    Raises:
        EOFError: the supervisor is gone.
    """
    return orjson.loads(_exactly(link, int.from_bytes(_exactly(link, _LENGTH))))


def _exactly(link: socket.socket, size: int) -> bytes:
    data = link.recv(size, socket.MSG_WAITALL)
    if len(data) < size:
        raise EOFError("the supervisor is gone")
    return data


class SupervisorChannel:
    """The worker's end; it stands where a relay alone has the server of its ops port.

    Attributes:
        address: for the operator; nobody connects to it.
        should_exit: set to end ``run_until_stopped``.
    """

    address = "the supervisor's"

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._pages: ASGIApp | None = None
        self._reading: Callable[[], MetricsSnapshot] = MetricsSnapshot
        self._ended = asyncio.Event()
        self._answers: set[asyncio.Task[None]] = set()
        self._listening = asyncio.create_task(self._listen(), name="supervisor")

    @classmethod
    async def open(cls, link: socket.socket) -> "SupervisorChannel":
        """Go on with the socket that the brief came on."""
        return cls(*await asyncio.open_unix_connection(sock=link, limit=MAX_LINE))

    @property
    def should_exit(self) -> bool:
        """True once it was told to end."""
        return self._ended.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value:
            self._ended.set()

    def serve(self, pages: ASGIApp, reading: Callable[[], MetricsSnapshot]) -> "SupervisorChannel":
        """Answer with these pages and numbers from now on."""
        self._pages, self._reading = pages, reading
        return self

    def tell(self, **message: Any) -> None:
        """Say something to the supervisor."""
        self._writer.write(orjson.dumps(message) + b"\n")

    async def run_until_stopped(self) -> None:
        """Answer until ``should_exit`` is set."""
        await self._ended.wait()

    async def close(self) -> None:
        """Let what was told be sent, and stop listening."""
        await cancel_and_wait(self._listening)
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                if not line.endswith(b"\n"):
                    break  # the supervisor died in the middle of it
                task = asyncio.create_task(self._answer(orjson.loads(line)), name="answer")
                self._answers.add(task)
                task.add_done_callback(self._answers.discard)
        except (OSError, ValueError):
            pass  # as good as the end, and so is a line that is none
        end_orphan()

    async def _answer(self, asked: dict[str, Any]) -> None:
        status: int = 503
        body: MetricsSnapshot | str = ""
        if self._pages is not None:
            try:
                if asked["path"] == SNAPSHOT_PATH:
                    status, body = 200, self._reading()
                else:
                    status, body = await page(self._pages, asked["path"])
            except Exception:
                # A question without an answer counts for good, and after some the worker is asked no more.
                log.exception("page %s of the ops port failed", asked["path"])
                status, body = 500, ""
        self.tell(id=asked["id"], status=status, body=body)


def end_orphan() -> None:
    """End a worker whose supervisor is gone: a signal for the ``bye``, another that ends at once."""
    loop = asyncio.get_running_loop()
    os.kill(os.getpid(), signal.SIGTERM)
    loop.call_later(ORPHAN_GRACE, os.kill, os.getpid(), signal.SIGTERM)
    loop.call_later(ORPHAN_END, os.kill, os.getpid(), signal.SIGKILL)


async def page(pages: ASGIApp, path: str) -> tuple[int, str]:
    """Ask an ASGI application for a page, without a socket.

    Returns:
        status and body.
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
    await pages(scope, receive, send)
    return status, body.decode(errors="replace")
