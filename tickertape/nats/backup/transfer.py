"""Transfer of snapshots from and to nats-server, with flow control.

The server sends a snapshot in chunks, each with a reply subject on which its receipt is confirmed, and has at
most 8 MiB of unconfirmed chunks under way. A restore is the reverse, with ``WINDOW``. So neither side holds
more than that in memory, however large a stream is. The server gives up after five idle seconds.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from tickertape.nats.backup.folder import HashedFile, NewFile
from tickertape.nats.backup.manifest import BackupError, StreamBackup
from tickertape.nats.client import watch_denials
from tickertape.nats.jetstream_api import StreamsError, request
from tickertape.process.tasks import run_with_check

CHUNK: Final = 128 * 1024
"""Bytes of a chunk, if the server accepts messages of that size."""

WINDOW: Final = 4 * 1024 * 1024
"""Bytes of a restore that may be unconfirmed."""

REQUEST_TIMEOUT: Final = 120.0
"""Seconds for the reply to the request that starts a transfer: an older server checks all messages first."""

IDLE_TIMEOUT: Final = 30.0
"""Seconds without a chunk or a confirmation after which a transfer has failed."""

FINISH_TIMEOUT: Final = 3600.0
"""Seconds for the server to load a restored stream after its last chunk."""

ERROR_NAME_IN_USE: Final = 10130
"""JetStream error code for a restore of a stream that exists."""

FIRST_ATTEMPTS: Final = 20
"""Maximum attempts to send the first chunk of a restore; the server gives up after five idle seconds."""

_POLL_INTERVAL: Final = 0.5
"""Seconds between two checks of the connection."""

_SUCCESS: Final = "204"
_NO_RESPONDERS: Final = "503"

T = TypeVar("T")
Progress = Callable[[int], None]
"""Receives the number of bytes of the archive that have been transferred or checked."""


async def in_thread(
    call: Callable[..., T], *arguments: Any, on_cancel: Callable[[], object] | None = None
) -> T:
    """Call a function that reads or writes files in a thread; when cancelled, wait until it has returned.

    Args:
        call: the function.
        arguments: its arguments.
        on_cancel: called on cancellation, to make the function return early.
    """
    future = asyncio.get_running_loop().run_in_executor(None, call, *arguments)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if on_cancel is not None:
            on_cancel()
        await asyncio.wait({future})
        if not future.cancelled():
            future.exception()  # mark it as retrieved
        raise


async def download(nc: Client, name: str, archive: NewFile, progress: Progress) -> dict[str, Any]:
    """Write a snapshot of a stream to an archive; return the reply with its configuration and state.

    Args:
        nc: a connected client.
        name: name of the stream in NATS.
        archive: a new file.
        progress: called after each chunk.

    Raises:
        BackupError: the transfer was interrupted.
        StreamsError: the server rejects the request.
        OSError: the archive cannot be written.
    """
    chunks: asyncio.Queue[Msg] = asyncio.Queue()  # bounded by the window
    inbox, verb = nc.new_inbox(), f"STREAM.SNAPSHOT.{name}"
    body = {"deliver_subject": inbox, "no_consumers": True, "jsck": True, "chunk_size": CHUNK}
    async with subscribed(nc, inbox, chunks.put):
        response = await request(nc, verb, body, timeout_seconds=REQUEST_TIMEOUT)
        if "error" in response:
            raise _rejected("snapshot", name, response)
        index, receipt = 0, ""
        while True:
            with watch_denials(nc, [receipt]) as denied:
                if receipt:
                    await nc.publish(receipt)
                chunk = await _next(nc, chunks, denied, verb)
            if not chunk.data:
                break
            index, receipt = index + 1, chunk.reply
            if receipt and receipt.rpartition(".")[2] != str(index):
                raise BackupError(f"chunk {index} of stream {name} is missing", "run the command again")
            await in_thread(archive.write, chunk.data)
            progress(archive.size)
        status = (chunk.headers or {}).get("Status", _SUCCESS)
        if status != _SUCCESS:
            reason = (chunk.headers or {}).get("Description", status)
            raise BackupError(
                f"NATS stopped the snapshot of stream {name}: {reason}",
                "run the command again; if NATS reports no flow response, the folder's disk is too slow",
            )
        return response


async def upload(
    nc: Client,
    backup: StreamBackup,
    config: dict[str, Any],
    archive: HashedFile,
    progress: Progress,
) -> dict[str, Any]:
    """Restore a stream, which must not exist; return its state.

    Args:
        nc: a connected client.
        backup: description of the archive.
        config: configuration of the restored stream.
        archive: the archive, at its beginning.
        progress: called after each chunk.

    Raises:
        NameInUse: the stream exists.
        BackupError: the transfer was interrupted, or the archive is not the one described.
        StreamsError: the server rejects the archive.
        OSError: the archive cannot be read.
    """
    verb = f"STREAM.RESTORE.{backup.name}"
    body = {"config": config, "state": backup.state}
    response = await request(nc, verb, body, timeout_seconds=REQUEST_TIMEOUT)
    if "error" in response:
        raise _rejected("restore", backup.name, response)
    target = response["deliver_subject"]
    replies: asyncio.Queue[Msg] = asyncio.Queue()
    inbox = nc.new_inbox()
    size = min(CHUNK, nc.max_payload)
    under_way = sent = 0

    async def confirm() -> bool:
        reply = await _next(nc, replies, denied, verb)
        if reply.data:
            raise _rejected("restore", backup.name, _reply(reply.data))
        return (reply.headers or {}).get("Status") != _NO_RESPONDERS

    async def send_first(data: bytes) -> None:
        # In a cluster, the subscription of the server that restores may become known later than its reply.
        for _ in range(FIRST_ATTEMPTS):
            await nc.publish(target, data, reply=inbox)
            if await confirm():
                return
            await asyncio.sleep(_POLL_INTERVAL)
        raise BackupError(f"no server receives the archive of stream {backup.name}", "run the command again")

    with watch_denials(nc, [target]) as denied:
        async with subscribed(nc, inbox, replies.put):
            data = await in_thread(archive.read, size)
            while data:
                following = await in_thread(archive.read, size)
                if not following and archive.sha256 != backup.sha256:
                    problem = f"the archive of {backup.stream} changed meanwhile"
                    raise BackupError(problem, "use another backup")
                if not sent:
                    await send_first(data)
                else:
                    if under_way * size >= WINDOW:
                        await confirm()
                        under_way -= 1
                    await nc.publish(target, data, reply=inbox)
                    under_way += 1
                sent += len(data)
                progress(sent)
                data = following
            for _ in range(under_way):
                await confirm()
            await nc.publish(target, b"", reply=inbox)
            final = _reply((await _next(nc, replies, denied, verb, FINISH_TIMEOUT)).data)
    if "error" in final:
        raise _rejected("restore", backup.name, final)
    state: dict[str, Any] = final["state"]
    return state


class NameInUse(StreamsError):
    """Restore of a stream that exists."""


def _rejected(action: str, name: str, response: dict[str, Any]) -> StreamsError:
    error = response["error"]
    code = error.get("err_code")
    kind = NameInUse if code == ERROR_NAME_IN_USE else StreamsError
    return kind(
        f"NATS rejected the {action} of stream {name}: {error.get('description')} (code {code})",
        "check the server log and the limits of the account",
    )


def _reply(data: bytes) -> dict[str, Any]:
    try:
        reply = orjson.loads(data)
    except orjson.JSONDecodeError:
        reply = None
    if isinstance(reply, dict) and (
        isinstance(reply.get("error"), dict) or isinstance(reply.get("state"), dict)
    ):
        return reply
    raise BackupError("the reply of NATS to a restore is invalid", "check the server log")


async def _next(
    nc: Client,
    queue: asyncio.Queue[Msg],
    denied: "asyncio.Future[Any]",
    verb: str,
    seconds: float = IDLE_TIMEOUT,
) -> Msg:
    """Return the next message; raise if the connection is lost, a permission is missing, or none arrives."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds

    def check() -> None:
        if denied.done():
            denied.result()
        if not nc.is_connected:
            raise BackupError("the connection to NATS was lost", "run the command again")
        if loop.time() > deadline:
            raise BackupError(f"NATS sent nothing for {seconds:.0f} s during {verb}", "check the server log")

    return await run_with_check(queue.get(), check, _POLL_INTERVAL)


@contextlib.asynccontextmanager
async def subscribed(
    nc: Client, subject: str, receive: Callable[[Msg], Awaitable[None]]
) -> AsyncIterator[None]:
    """Subscribe to a subject while the context is active.

    Args:
        nc: a connected client.
        subject: the subject.
        receive: receives the messages.
    """
    subscription = await nc.subscribe(subject, cb=receive, pending_msgs_limit=0, pending_bytes_limit=0)
    try:
        yield
    finally:
        with contextlib.suppress(NatsError):  # the connection was lost, which ends it, too
            await subscription.unsubscribe()


__all__ = ["NameInUse", "Progress", "download", "in_thread", "subscribed", "upload"]
