"""Restore of a backup: all checks first, then the streams are deleted, restored, and connected again.

Invariants:

1. Nothing is deleted before the archives, the permissions and the room have been checked.
2. A restored stream has a mark, and neither its subjects nor its sources, until all streams are restored. So
   it accepts no events, and programs wait, whenever and however this process ends.
3. A restore that was interrupted can be repeated: it starts over.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client

from tickertape.names import Names
from tickertape.nats.backup.checks import check_restore_permissions, check_room, check_server
from tickertape.nats.backup.folder import BackupFolder
from tickertape.nats.backup.make import Steps, check_archive
from tickertape.nats.backup.manifest import AUDIT, RESTORE_ORDER, BackupError, Manifest, StreamBackup
from tickertape.nats.backup.transfer import NameInUse, upload
from tickertape.nats.jetstream_api import ERROR_NOT_FOUND, request, stream_error, stream_info
from tickertape.nats.layout.history import restart_history
from tickertape.nats.stream_differences import (
    RESTORE_MARK,
    Difference,
    catch_up,
    compare,
    compare_layout,
)

ATTEMPTS: Final = 5
"""Attempts to restore a stream that another program creates meanwhile, or whose deletion takes a while."""

RETRY_DELAY: Final = 1.0
"""Seconds between two attempts."""

CATCH_UP_TIMEOUT: Final = 600.0
"""Seconds to wait until a stream has caught up with its source."""


@dataclass(frozen=True, slots=True)
class RestorePlan:
    """Checked restore, which has changed nothing yet.

    Attributes:
        manifest: the backup.
        configs: configurations of the restored streams, by their name in the contract.
        existing: descriptions of the streams that will be deleted, by their name in the contract.
        kept: names of streams that exist and are kept, although the backup has them.
    """

    manifest: Manifest
    configs: dict[str, dict[str, Any]]
    existing: dict[str, dict[str, Any]]
    kept: tuple[str, ...]

    @property
    def backups(self) -> list[StreamBackup]:
        """Archives that will be restored, in that order."""
        found = (self.manifest.find(key) for key in RESTORE_ORDER if key in self.configs)
        return [backup for backup in found if backup is not None]

    @property
    def newer_events(self) -> int:
        """Number of events that EVENTS has received since the backup, which the restore deletes."""
        backup = self.manifest.find("EVENTS")
        if backup is None or "EVENTS" not in self.existing:
            return 0
        return max(0, int(self.existing["EVENTS"]["state"]["last_seq"]) - backup.last_seq)


async def plan_restore(
    nc: Client,
    names: Names,
    folder: BackupFolder,
    expected: Mapping[str, dict[str, Any]],
    replicas: int | None,
    steps: Steps,
) -> RestorePlan:
    """Check whether a backup can be restored.

    Args:
        nc: a client whose user may restore streams.
        names: names of the deployment; sizes in it replace those of the backup.
        folder: folder of the backup.
        expected: configurations of the contract, by name of the stream.
        replicas: replicas of each stream; None keeps those of the backup.
        steps: displays the progress.

    Raises:
        BackupError: it cannot be restored.
        StreamsError: NATS rejects a request.
        OSError: the backup cannot be read.
    """
    manifest = folder.read_manifest()
    if manifest.prefix != names.prefix:
        raise BackupError(
            f"the backup is of the subject prefix {manifest.prefix!r}, not of {names.prefix!r}",
            "set --subject-prefix to that of the backup, or use another backup",
        )
    existing = {key: info for key in RESTORE_ORDER if (info := await stream_info(nc, names.stream(key)))}
    # Records that were stored since the backup must not be deleted.
    kept = (AUDIT,) if AUDIT in existing and manifest.find(AUDIT) is not None else ()
    existing.pop(AUDIT, None)
    # Backups of earlier versions have no HISTORY.
    for key in ("REJECTED", "HISTORY"):
        if manifest.find(key) is None:
            existing.pop(key, None)
    configs = {
        backup.stream: _restored_config(backup, names, expected, replicas)
        for backup in manifest.streams
        if backup.stream not in kept
    }
    plan = RestorePlan(manifest, configs, existing, kept)
    check_server(nc, plan.backups, configs)
    await check_restore_permissions(nc, [backup.name for backup in plan.backups])
    await check_room(nc, plan.backups, configs, existing.values())
    for backup in plan.backups:
        file = folder.open_archive(backup.stream)
        contents = await check_archive(
            file, backup.name, backup.sha256, steps(f"checking {backup.stream}", backup.size)
        )
        if contents.format != backup.format or contents.size != backup.content_size:
            raise BackupError(
                f"the archive of {backup.stream} is not that of the manifest", "use another backup"
            )
    return plan


def _restored_config(
    backup: StreamBackup, names: Names, expected: Mapping[str, dict[str, Any]], replicas: int | None
) -> dict[str, Any]:
    """Return the configuration of a restored stream."""
    contract = expected.get(backup.stream)
    if contract is None:
        raise BackupError(
            f"this nats-server cannot have the stream {backup.name}",
            "restore it on nats-server 2.12 or newer",
        )
    found: list[Difference]
    if backup.name != contract["name"]:
        raise BackupError(
            f"the archive of {backup.stream} is of stream {backup.name}, not of {contract['name']}",
            "use another backup",
        )
    if backup.stream == AUDIT:
        found = compare(contract, backup.config)
    else:
        found = compare_layout(backup.stream, contract, backup.config, names)
    if breaking := [difference for difference in found if difference.is_breaking]:
        raise BackupError(f"the backup does not match the contract: {breaking[0]}", "use another backup")
    config = dict(backup.config)
    if backup.stream in names.sizes:
        config["max_bytes"] = names.sizes[backup.stream]
    if replicas is not None:
        config["num_replicas"] = replicas
    return config


async def restore(
    nc: Client, names: Names, folder: BackupFolder, plan: RestorePlan, steps: Steps
) -> dict[str, dict[str, Any]]:
    """Delete the streams and restore them; return their states, by name in the contract.

    Args:
        nc: a client whose user may restore streams.
        names: names of the deployment.
        folder: folder of the backup.
        plan: result of ``plan_restore``.
        steps: displays the progress.

    Raises:
        BackupError, StreamsError, OSError: the restore was interrupted, and has to be repeated.
    """
    mark = {RESTORE_MARK: secrets.token_hex(8)}
    # Sources last, because the other streams copy from them.
    for key in reversed(RESTORE_ORDER):
        if key in plan.existing:
            await _delete(nc, names.stream(key))
    states = {}
    for backup in plan.backups:
        config = {
            **plan.configs[backup.stream],
            "subjects": [f"restoring.{backup.name}"],
            "metadata": {**(backup.config.get("metadata") or {}), **mark},
        }
        config.pop("sources", None)
        states[backup.stream] = await _upload(nc, folder, backup, config, steps)
    await _connect(nc, plan, mark)
    if plan.manifest.find("HISTORY") is None:
        await restart_history(nc, names)
    for backup in plan.backups:
        await _update(nc, plan.configs[backup.stream])
    return states


async def _upload(
    nc: Client, folder: BackupFolder, backup: StreamBackup, config: dict[str, Any], steps: Steps
) -> dict[str, Any]:
    """Restore a stream, and return its state; delete it if another program creates it meanwhile."""
    attempt = 0
    while True:
        attempt += 1
        file = folder.open_archive(backup.stream)
        try:
            state = await upload(nc, backup, config, file, steps(f"restoring {backup.stream}", backup.size))
        except NameInUse:
            if attempt == ATTEMPTS:
                raise
            await _delete(nc, backup.name)
            await asyncio.sleep(RETRY_DELAY * (attempt - 1))
        else:
            break
        finally:
            file.close()
    if int(state["last_seq"]) < backup.last_seq:
        raise BackupError(
            f"stream {backup.name} ends with {state['last_seq']} instead of {backup.last_seq}",
            "check the server log, and run the command again",
        )
    return state


async def _connect(nc: Client, plan: RestorePlan, mark: dict[str, str]) -> None:
    """Give all streams their subjects and sources, and wait until they have copied what they lack."""
    watchdog = plan.manifest.find("WATCHDOG")
    if watchdog is not None and plan.manifest.watchdog_seq:
        # EVENTS has these already, and would copy them again: it takes WATCHDOG for another stream.
        body = {"filter": _fired(watchdog.config), "seq": plan.manifest.watchdog_seq + 1}
        response = await request(nc, f"STREAM.PURGE.{watchdog.name}", body)
        if "error" in response:
            raise stream_error(watchdog.name, response)
    for backup in plan.backups:
        config = plan.configs[backup.stream]
        await _update(nc, {**config, "metadata": {**(config.get("metadata") or {}), **mark}})
    for backup in plan.backups:
        has_sources = bool(plan.configs[backup.stream].get("sources"))
        if has_sources and not await catch_up(nc, backup.name, CATCH_UP_TIMEOUT):
            raise BackupError(
                f"stream {backup.name} does not copy from its source",
                "check the server log, and run the command again",
            )


def _fired(config: dict[str, Any]) -> str:
    """Return the subjects of fired switches in WATCHDOG, with the deployment's prefix."""
    subject = str(config["subjects"][0])
    return f"{subject.removesuffix('>')}fired.>"


async def _update(nc: Client, config: dict[str, Any]) -> None:
    response = await request(nc, f"STREAM.UPDATE.{config['name']}", config, retry=True)
    if "error" in response:
        raise stream_error(config["name"], response)


async def _delete(nc: Client, name: str) -> None:
    response = await request(nc, f"STREAM.DELETE.{name}")
    if "error" in response and response["error"].get("err_code") != ERROR_NOT_FOUND:
        raise stream_error(name, response)


__all__ = ["RestorePlan", "plan_restore", "restore"]
