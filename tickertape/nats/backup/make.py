"""Making a backup: a snapshot of each stream, checked as a restore would check it, and the manifest."""

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from nats.aio.client import Client

from tickertape.names import Names
from tickertape.nats.backup.archive import ArchiveError, Contents, scan
from tickertape.nats.backup.checks import check_snapshot_permissions
from tickertape.nats.backup.folder import BackupFolder, HashedFile
from tickertape.nats.backup.manifest import SNAPSHOT_ORDER, BackupError, Manifest, StreamBackup
from tickertape.nats.backup.transfer import Progress, download, in_thread
from tickertape.nats.jetstream_api import stream_info
from tickertape.nats.stream_differences import catch_up, check_restored

CATCH_UP_TIMEOUT: Final = 10.0
"""Seconds to wait until EVENTS has copied the fired switches of WATCHDOG; a switch fires rarely."""

_PROGRESS_INTERVAL: Final = 0.1
"""Seconds between two reports of the progress of a check."""

_READ_SIZE: Final = 1024 * 1024

Steps = Callable[[str, int], Progress]
"""Starts the display of a step; receives its name and the number of its bytes."""


async def make_backup(nc: Client, names: Names, folder: BackupFolder, steps: Steps) -> Manifest:
    """Make a backup of all streams that exist; return its manifest.

    Args:
        nc: a client whose user may make snapshots.
        names: names of the deployment.
        folder: a folder without a backup.
        steps: displays the progress.

    Raises:
        BackupError: EVENTS does not exist, or a snapshot failed.
        StreamsError: NATS rejects a request.
        OSError: the folder cannot be written.
    """
    existing = {key: info for key in SNAPSHOT_ORDER if (info := await stream_info(nc, names.stream(key)))}
    for info in existing.values():
        check_restored(info["config"])
    if "EVENTS" not in existing:
        raise BackupError(
            f"stream {names.stream('EVENTS')} does not exist", "check --subject-prefix and the NATS address"
        )
    await check_snapshot_permissions(nc, [info["config"]["name"] for info in existing.values()])
    backups, watchdog_seq = [], 0
    for key, info in existing.items():
        if key == "EVENTS" and "WATCHDOG" in existing:
            watchdog_seq = await _copied_from_watchdog(nc, names)
        backups.append(await _snapshot(nc, folder, key, info["config"]["name"], steps))
    manifest = Manifest(
        datetime.now(UTC).isoformat(timespec="seconds"),
        version("tickertape"),
        str(nc.connected_server_version),
        names.prefix,
        watchdog_seq,
        tuple(backups),
    )
    await in_thread(folder.finish, manifest)
    return manifest


async def _snapshot(nc: Client, folder: BackupFolder, key: str, name: str, steps: Steps) -> StreamBackup:
    info = await stream_info(nc, name)
    expected = int(info["state"]["bytes"]) if info is not None else 0
    archive = folder.create_archive(key)
    try:
        response = await download(nc, name, archive, steps(f"backing up {key}", expected))
        await in_thread(archive.finish)
    finally:
        archive.close()
    contents = await check_archive(
        folder.open_archive(key), name, archive.sha256, steps(f"checking {key}", archive.size)
    )
    state = response["state"]
    messages = int(state["messages"]) if contents.messages is None else contents.messages
    return StreamBackup(
        key,
        _without_server_metadata(response["config"]),
        state,
        messages,
        archive.size,
        archive.sha256,
        contents.format,
        contents.size,
    )


async def check_archive(file: HashedFile, name: str, sha256: str, progress: Progress) -> Contents:
    """Read an archive, and check its digest and its structure; the file is closed.

    Args:
        file: the archive.
        name: name of the stream in NATS.
        sha256: expected digest.
        progress: called now and then.

    Raises:
        BackupError: the archive is damaged.
        OSError: the archive cannot be read.
    """

    stop = threading.Event()

    def check() -> Contents:
        reported = 0.0

        def read(count: int) -> bytes:
            nonlocal reported
            if stop.is_set():
                raise ArchiveError("the check was interrupted")
            data = file.read(count)
            if time.monotonic() - reported > _PROGRESS_INTERVAL:
                reported = time.monotonic()
                loop.call_soon_threadsafe(progress, file.position)
            return data

        problem = ""
        contents: Contents | None = None
        try:
            contents = scan(read, name)
        except ArchiveError as error:
            problem = str(error)
        while not stop.is_set() and file.read(_READ_SIZE):
            pass  # the digest is of the whole file
        # First, because damage to the file explains all other problems.
        if file.sha256 != sha256:
            problem = "its SHA-256 is not that in the manifest"
        if contents is None or problem:
            raise BackupError(f"the archive of stream {name} is damaged: {problem}", "use another backup")
        return contents

    loop = asyncio.get_running_loop()
    try:
        return await in_thread(check, on_cancel=stop.set)
    finally:
        file.close()


async def _copied_from_watchdog(nc: Client, names: Names) -> int:
    """Return the last sequence of WATCHDOG of which EVENTS has all fired switches."""
    watchdog = await stream_info(nc, names.stream("WATCHDOG"))
    last = int(watchdog["state"]["last_seq"]) if watchdog is not None else 0
    if not await catch_up(nc, names.stream("EVENTS"), CATCH_UP_TIMEOUT):
        raise BackupError(
            f"stream {names.stream('EVENTS')} does not copy from {names.stream('WATCHDOG')}",
            "check the server log",
        )
    return last


def _without_server_metadata(config: dict[str, Any]) -> dict[str, Any]:
    metadata = {
        key: value for key, value in (config.get("metadata") or {}).items() if not key.startswith("_nats.")
    }
    return {
        **{key: value for key, value in config.items() if key != "metadata"},
        **({"metadata": metadata} if metadata else {}),
    }


__all__ = ["Steps", "check_archive", "make_backup"]
