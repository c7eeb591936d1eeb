"""Checks before a backup or a restore: permissions of the NATS user, and room for the restored streams.

Each check has no effect on any stream, so that a restore deletes nothing before all of them have passed.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from nats.aio.client import Client

from tickertape.nats.backup.manifest import BackupError, StreamBackup
from tickertape.nats.client import server_info, watch_denials
from tickertape.nats.jetstream_api import request
from tickertape.text import mib

ARCHIVE_VERSION: Final = (2, 15)
"""First version of nats-server that reads archives of the newer format."""

_PROBE: Final = "tickertape-probe"
"""Name in requests that must have no effect: of no stream, and of no transfer."""

_SMALLER: Final = "restore with smaller sizes (--max-bytes); nothing was changed"

_TOO_MANY_STREAMS: Final = 10027


async def check_snapshot_permissions(nc: Client, streams: Iterable[str]) -> None:
    """Check the permissions to make snapshots.

    Args:
        nc: a connected client.
        streams: names of the streams in NATS.

    Raises:
        PermissionDenied: a permission is missing.
    """
    for name in streams:
        await request(nc, f"STREAM.SNAPSHOT.{name}")  # rejected: it has no parameters
        await _check_publish(nc, f"$JS.SNAPSHOT.ACK.{name}.{_PROBE}.0.0")


async def check_restore_permissions(nc: Client, streams: Iterable[str]) -> None:
    """Check the permissions to delete, restore and alter streams.

    Args:
        nc: a connected client.
        streams: names of the streams in NATS.

    Raises:
        PermissionDenied: a permission is missing.
    """
    for name in streams:
        await request(nc, f"STREAM.RESTORE.{name}")  # rejected: it has no parameters
        await request(nc, f"STREAM.DELETE.{name}", {"name": name})  # rejected: it must have none
        await request(nc, f"STREAM.UPDATE.{name}", {"name": _PROBE})  # rejected: the names differ
        await request(nc, f"STREAM.PURGE.{_PROBE}")  # rejected: there is no such stream
        await _check_publish(nc, f"$JS.SNAPSHOT.RESTORE.{name}.{_PROBE}")


async def _check_publish(nc: Client, subject: str) -> None:
    with watch_denials(nc, [subject]) as denied:
        await nc.publish(subject, b"")
        await nc.flush()  # the server reports what it denies before its PONG
        if denied.done():
            denied.result()


def check_server(nc: Client, backups: Iterable[StreamBackup], configs: Mapping[str, dict[str, Any]]) -> None:
    """Check that the server reads the archives, and can have the replicas.

    Args:
        nc: a connected client.
        backups: archives of the streams.
        configs: configurations of the restored streams, by their name in the contract.

    Raises:
        BackupError: it does not, or cannot.
    """
    version = nc.connected_server_version
    for backup in backups:
        if backup.format == "archive" and (version.major, version.minor) < ARCHIVE_VERSION:
            raise BackupError(
                f"nats-server {version.major}.{version.minor} cannot read snapshots of nats-server 2.15",
                "restore it on nats-server 2.15 or newer",
            )
        replicas = int(configs[backup.stream].get("num_replicas") or 1)
        if replicas > 1 and not server_info(nc).get("cluster"):
            raise BackupError(
                f"stream {backup.name} has {replicas} replicas, but the server is in no cluster",
                "restore with --replicas 1",
            )


async def check_room(
    nc: Client,
    backups: Iterable[StreamBackup],
    configs: Mapping[str, dict[str, Any]],
    existing: Iterable[dict[str, Any]],
) -> None:
    """Check that the account and the server have room for the restored streams, once others are deleted.

    The free space of the server's disk is unknown: NATS does not report it.

    Args:
        nc: a connected client.
        backups: archives of the streams.
        configs: configurations of the restored streams, by their name in the contract.
        existing: descriptions of the streams that will be deleted.

    Raises:
        BackupError: there is not enough room.
    """
    backups, existing = list(backups), list(existing)
    account = await request(nc, "INFO", retry=True)
    limits = account.get("limits") or {}
    needed = sum(_reservation(configs[backup.stream], backup) for backup in backups)
    freed = sum(_reserved(info["config"]) for info in existing)
    reserved = int(account.get("reserved_storage", 0)) - freed
    _check_account(backups, configs, limits, needed, reserved)
    streams = int(account.get("streams", 0)) - len(existing) + len(backups)
    if 0 < int(limits.get("max_streams", -1)) < streams:
        raise BackupError(
            f"the account is limited to {limits['max_streams']} streams, but would have {streams}",
            "raise max_streams of the account; nothing was changed",
        )
    if needed > freed:
        replicas = max(int(config.get("num_replicas") or 1) for config in configs.values())
        await _reserve(nc, (needed - freed) // replicas, replicas)


def _check_account(
    backups: list[StreamBackup],
    configs: Mapping[str, dict[str, Any]],
    limits: dict[str, Any],
    needed: int,
    reserved: int,
) -> None:
    maximum = int(limits.get("max_storage", -1))
    if maximum > 0 and reserved + needed > maximum:
        raise BackupError(
            f"the streams need {mib(needed, 1)}; the account has {mib(max(0, maximum - reserved), 1)} left",
            f"raise max_file of the account, or {_SMALLER}",
        )
    of_stream = int(limits.get("storage_max_stream_bytes", 0))
    for backup in backups:
        size = int(configs[backup.stream]["max_bytes"])
        if 0 < of_stream < size:
            raise BackupError(
                f"stream {backup.name} needs {mib(size, 1)}; the account allows {mib(of_stream, 1)}",
                f"raise store_max_stream_bytes of the account, or {_SMALLER}",
            )
        # While a server reads a tar file, it counts the extracted files beside the size of the stream.
        if backup.format == "tar" and 0 < maximum < size + backup.content_size:
            raise BackupError(
                f"stream {backup.name} needs {mib(size + backup.content_size, 1)} while it is restored, "
                f"and the account has {mib(maximum, 1)}",
                "raise max_file of the account; nothing was changed",
            )


def _reserved(config: dict[str, Any]) -> int:
    return max(0, int(config["max_bytes"])) * int(config.get("num_replicas") or 1)


def _reservation(config: dict[str, Any], backup: StreamBackup) -> int:
    """Return the bytes that a restored stream needs: what it reserves, or what it has if that is more."""
    return max(int(config["max_bytes"]), int(backup.state["bytes"])) * int(config.get("num_replicas") or 1)


async def _reserve(nc: Client, size: int, replicas: int) -> None:
    """Check that servers can reserve more bytes than now, by means of a stream that is deleted again."""
    config = {
        "name": _PROBE,
        "subjects": [f"{_PROBE}.none"],
        "storage": "file",
        "max_bytes": size,
        "num_replicas": replicas,
    }
    response = await request(nc, f"STREAM.CREATE.{_PROBE}", config)
    error = response.get("error") or {}
    if not error:
        await request(nc, f"STREAM.DELETE.{_PROBE}")
    elif error.get("err_code") != _TOO_MANY_STREAMS:  # the limit is checked above, without the probe
        raise BackupError(
            f"the server cannot reserve {mib(size, 1)} more: {error.get('description')}",
            f"raise max_file_store of the server, or {_SMALLER}",
        )


__all__ = [
    "check_restore_permissions",
    "check_room",
    "check_server",
    "check_snapshot_permissions",
]
