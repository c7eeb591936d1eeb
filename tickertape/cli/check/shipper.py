"""Checks of a shipper: whether its paths can be read, and whether another one ships under its host name.

Nothing is changed. Two shippers of one host name replace each other's health, and each other's checkpoints
of files with the same path: batches are rejected, or lines of one of the two hosts are taken for shipped.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import orjson
from nats.errors import Error as NatsError

from tickertape.cli.check.finding import Finding
from tickertape.contracts.events import SystemHealth
from tickertape.errors import ConfigurationError
from tickertape.names import Names
from tickertape.nats import connection, direct_get
from tickertape.nats.errors import PermissionDenied
from tickertape.nats.settings import NatsSettings
from tickertape.process.lockfile import is_locked
from tickertape.producers.shipper.files.globs import expand
from tickertape.producers.shipper.files.roots import ForbiddenPath, PathChanged, Roots
from tickertape.producers.shipper.sinks.local_state import lock_path, state_key, state_path
from tickertape.text import count

RECENT: Final = 30.0
"""Seconds in which a running shipper publishes its health, with the default interval of 10."""

MAX_FINDINGS: Final = 20
"""Maximum findings about paths; the others are counted."""


def check_paths(patterns: list[str], roots: list[str]) -> list[Finding]:
    """Check that the paths and globs of a shipper match files that it can read.

    Args:
        patterns: paths and globs, as for ``ship``.
        roots: folders to which symbolic links may lead.
    """
    absolute = [os.path.abspath(pattern) for pattern in patterns]
    allowed = Roots(absolute, map(os.path.abspath, roots))
    found = [finding for pattern in absolute for finding in _check_pattern(pattern, allowed)]
    if len(found) > MAX_FINDINGS:
        left = len(found) - MAX_FINDINGS
        found = [*found[:MAX_FINDINGS], Finding.error("shipper_paths", f"{left} more paths cannot be read")]
    return found or [Finding.ok("shipper_paths", f"all files that match {', '.join(patterns)} can be read")]


def check_format_file(path: Path) -> list[Finding]:
    """Check the format file of a shipper, and report all its problems."""
    try:
        from tickertape.producers.shipper.format_file.loader import FormatFileError, load_formats
    except ModuleNotFoundError as error:
        hint = "pip install 'tickertape[ship]'"
        return [Finding.error("shipper_formats", f"{error.name} is not installed", hint)]
    try:
        formats = load_formats(path)
    except FormatFileError as error:
        return [Finding.from_error("shipper_formats", problem) for problem in error.problems]
    except ConfigurationError as error:
        return [Finding.from_error("shipper_formats", error)]
    names = ", ".join(each.name for each in formats)
    return [Finding.ok("shipper_formats", f"{path}: {count(len(formats), 'format')}: {names}")]


def _check_pattern(pattern: str, roots: Roots) -> Iterator[Finding]:
    unlisted: list[Finding] = []

    def record(folder: str, error: OSError) -> None:
        unlisted.append(_unreadable(folder, error))

    def follow(folder: str) -> bool:
        try:
            return bool(roots.resolve(folder))
        except OSError:
            return False

    paths = [path for path, _ in expand(pattern, record, follow)]
    yield from unlisted
    missing = not paths
    for path in paths:
        try:
            os.close(roots.open(path))
        except FileNotFoundError:
            missing = True
        except (ForbiddenPath, PathChanged, OSError) as error:
            # A glob matches folders as well, which the shipper skips.
            if os.path.isdir(path):
                if path == pattern:
                    yield Finding.error(
                        "shipper_paths",
                        f"{path}: is a folder",
                        "set a glob of its files, such as '*.log' in it",
                    )
            elif isinstance(error, ForbiddenPath):
                yield Finding.error("shipper_paths", f"{path}: not read", error.reason)
            else:
                yield _unreadable(path, error)
    if missing and not unlisted:
        hint = "check the path; the shipper waits until a file matches"
        yield Finding.warn("shipper_paths", f"no file matches {pattern}", hint)


def _unreadable(path: str, error: OSError | PathChanged) -> Finding:
    reason = error.strerror if isinstance(error, OSError) else "it has just been replaced"
    return Finding.error(
        "shipper_paths", f"{path}: cannot be read: {reason}", "make it readable by the user of the shipper"
    )


async def check_host(
    settings: NatsSettings, names: Names, host: str, patterns: list[str], folder: Path, now: float
) -> list[Finding]:
    """Check whether a shipper that is not the one of this state ships under the host name.

    Args:
        settings: address and credentials of NATS.
        names: names of the deployment.
        host: host name of the shipper.
        patterns: its paths and globs.
        folder: folder of its state.
        now: UNIX seconds.
    """
    try:
        client = await connection.connect_once(
            settings.nats_url or connection.DEFAULT_URL, name="tickertape-check", access=settings.access()
        )
    except (connection.ConnectError, connection.AccessError) as error:
        return [Finding.from_error("nats", error)]
    subject = names.subject(SystemHealth.subject_of(component="shipper", instance=host))
    try:
        message = await direct_get.get_last_message(client, names.stream("HEALTH"), subject)
    except PermissionDenied as error:
        return [Finding.from_error("permissions", error)]
    except (NatsError, TimeoutError):
        return [
            Finding.warn("shipper_host", "the health of shippers cannot be read", "run 'tickertape check'")
        ]
    finally:
        await connection.close(client)
    age = None if message is None or message.stored_ns is None else max(0.0, now - message.stored_ns / 1e9)
    conflicts = 0 if message is None else _conflicts(message.data)
    return [_host_finding(host, age, conflicts, running=_is_running(host, patterns, folder))]


def _is_running(host: str, patterns: list[str], folder: Path) -> bool:
    key = state_key(host, [os.path.abspath(pattern) for pattern in patterns])
    return is_locked(lock_path(state_path(folder, key)))


def _host_finding(host: str, age: float | None, conflicts: int, *, running: bool) -> Finding:
    if age is None or age > RECENT:
        return Finding.ok("shipper_host", f"no other shipper uses the host name {host}")
    hint = "give each shipper its own --host, and do not copy a state folder to another host"
    if conflicts:
        text = f"two shippers use the host name {host}: {count(conflicts, 'conflict')} of their checkpoints"
        return Finding.error("shipper_host", text, hint)
    if running:
        return Finding.ok("shipper_host", f"the shipper of {host} runs on this machine with this state")
    text = f"a shipper that does not run with this state used the host name {host} {age:.0f} s ago"
    return Finding.warn("shipper_host", text, f"unless it has just been stopped here, {hint}")


def _conflicts(payload: bytes) -> int:
    """Return the number of conflicts in a health event, which any client may have published."""
    try:
        conflicts = orjson.loads(payload)["checks"]["conflicts"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return 0
    return conflicts if isinstance(conflicts, int) else 0
