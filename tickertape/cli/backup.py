"""``tickertape streams backup`` and ``restore``: progress, confirmation, and the outcome of failures."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

from nats.aio.client import Client
from nats.errors import Error as NatsError

from tickertape.cli.transfer_progress import TransferProgress
from tickertape.errors import TickertapeError
from tickertape.names import Names
from tickertape.nats.backup.folder import BackupFolder
from tickertape.nats.backup.lock import restore_lock
from tickertape.nats.backup.make import make_backup
from tickertape.nats.backup.manifest import AUDIT, STREAMS, BackupError
from tickertape.nats.backup.restore import RestorePlan, plan_restore, restore
from tickertape.nats.streams import differences, server_version, stream_configs
from tickertape.process.console import is_interactive, print_error, print_line, print_notice, read_answer
from tickertape.process.files import write_hint
from tickertape.process.signals import add_signal_handlers, stop_signals
from tickertape.process.tasks import run_until_stopped
from tickertape.relay.audit.audit_stream import audit_config
from tickertape.text import count, mib

PROGRAM: Final = "streams"

T = TypeVar("T")


class _Interrupted(TickertapeError):
    """Signal that stopped the command.

    Args:
        name: name of the signal.
        code: exit code of the command.
    """

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"interrupted by {name}")
        self.code = code


async def run_backup(client: Client, names: Names, path: Path) -> int:
    """Write a backup of all streams to a folder; return the exit code."""
    try:
        with (
            _readable_errors(path),
            BackupFolder.create(path) as folder,
            TransferProgress(PROGRAM) as progress,
        ):
            try:
                manifest = await _interruptibly(make_backup(client, names, folder, progress.start))
            except BaseException:
                folder.discard()
                print_notice(PROGRAM, f"the backup was not completed; {path} contains no part")
                raise
    except _Interrupted as error:
        print_notice(PROGRAM, str(error))
        return error.code
    for backup in manifest.streams:
        print_line(f"{backup.name:<12} {count(backup.messages, 'message')}, {mib(backup.size, 1)}")
    for stream in STREAMS:
        if manifest.find(stream) is None and stream != AUDIT:
            print_notice(PROGRAM, f"stream {names.stream(stream)} does not exist, and is not in the backup")
    print_line(f"backup complete: {path}")
    return 0


async def run_restore(client: Client, names: Names, path: Path, replicas: int | None, confirmed: bool) -> int:
    """Restore all streams from a folder; return the exit code.

    Args:
        client: a connected client.
        names: names of the deployment.
        path: the folder.
        replicas: replicas of each stream; None keeps those of the backup.
        confirmed: whether streams may be deleted without asking.
    """
    try:
        with _readable_errors(path), BackupFolder.open(path) as folder, TransferProgress(PROGRAM) as progress:
            async with restore_lock(client, names):
                expected = _contract(client, names)
                work = plan_restore(client, names, folder, expected, replicas, progress.start)
                plan = await _interruptibly(work)
                progress.stop()
                for line in _describe(plan):
                    print_line(line)
                if plan.existing and not confirmed and not await _interruptibly(_confirm()):
                    return 1
                states = await _restore(client, names, folder, plan, progress)
    except _Interrupted as error:
        print_notice(PROGRAM, str(error))
        return error.code
    _report(plan, states)
    for difference in await differences(client, names):
        if difference.is_breaking or difference.problem:
            print_notice(PROGRAM, f"{difference}; run 'tickertape streams apply'")
    print_line("restore complete; start the producers again")
    return 0


async def _restore(
    client: Client, names: Names, folder: BackupFolder, plan: RestorePlan, progress: TransferProgress
) -> dict[str, dict[str, Any]]:
    try:
        return await _interruptibly(restore(client, names, folder, plan, progress.start))
    except BaseException:
        print_notice(
            PROGRAM,
            "the restore was not completed: streams are missing, or accept no events; "
            f"run 'tickertape streams restore {folder.path}' again",
        )
        raise


def _contract(client: Client, names: Names) -> dict[str, dict[str, Any]]:
    """Return the configurations of the contract by name of the stream."""
    configs = {config["name"]: config for config in stream_configs(names, server_version(client))}
    contract = {key: configs[names.stream(key)] for key in STREAMS if names.stream(key) in configs}
    return {**contract, AUDIT: audit_config(names)}


def _describe(plan: RestorePlan) -> list[str]:
    """Return lines about what a restore will do."""
    lines = [f"the backup of {plan.manifest.created} can be restored:"]
    lines += [
        f"  {backup.name:<12} {count(backup.messages, 'message')}, up to sequence {backup.last_seq}"
        for backup in plan.backups
    ]
    lines += [f"  stream {name} exists, and is kept" for name in plan.kept]
    if plan.existing:
        existing = ", ".join(info["config"]["name"] for info in plan.existing.values())
        lines.append(f"these streams will be deleted: {existing}")
    if plan.newer_events:
        lines.append(f"they have {count(plan.newer_events, 'event')} that the backup does not have")
    return lines


def _report(plan: RestorePlan, states: dict[str, dict[str, Any]]) -> None:
    for backup in plan.backups:
        restored = int(states[backup.stream]["messages"])
        lost = max(0, backup.messages - restored)
        suffix = f"; {count(lost, 'older one')} expired or did not fit" if lost else ""
        print_line(f"{backup.name:<12} {count(restored, 'message')} restored{suffix}")


async def _confirm() -> bool:
    """Request a confirmation on a terminal; return whether it was given."""
    if not is_interactive():
        print_notice(PROGRAM, "the restore deletes streams: confirm it with --yes; nothing was changed")
        return False
    print_error("Delete these streams, and restore the backup? Type yes:")
    answer = await asyncio.get_running_loop().run_in_executor(None, read_answer)
    if answer == "yes":
        return True
    print_notice(PROGRAM, "not confirmed; nothing was changed")
    return False


@contextlib.contextmanager
def _readable_errors(path: Path) -> Iterator[None]:
    """Raise errors of files and of the connection as errors that name their cause."""
    try:
        yield
    except (TickertapeError, BrokenPipeError):  # a denied permission is a NatsError, too
        raise
    except OSError as error:
        hint = write_hint(error, "choose another folder")
        name = path / (error.filename or "")  # may be relative to the folder
        raise BackupError(f"{name}: {error.strerror or error}", hint) from None
    except NatsError as error:
        raise BackupError(f"the connection to NATS failed: {error}", "run the command again") from None


async def _interruptibly(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine; cancel it on a stop signal, and raise ``_Interrupted``."""
    stop = asyncio.Event()
    received: list[signal.Signals] = []

    def interrupt(number: signal.Signals) -> None:
        received.append(number)
        stop.set()

    remove_handlers = add_signal_handlers(interrupt, *stop_signals())
    try:
        result = await run_until_stopped(stop.wait(), work)
    finally:
        remove_handlers()
    if result is None:
        raise _Interrupted(received[0].name, 128 + received[0])
    return result


__all__ = ["run_backup", "run_restore"]
