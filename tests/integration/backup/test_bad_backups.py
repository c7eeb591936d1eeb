"""Whatever is wrong with a backup or with the room is found before anything is deleted."""

import asyncio
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients.feed_client import jetstream, run
from tests.support.s2_frames import framed
from tests.support.servers.nats_server import NatsServer, limited_account
from tests.unit.nats.backup.test_archive import META, tar
from tickertape.cli.streams import StreamsSettings
from tickertape.cli.streams import run as run_streams
from tickertape.errors import TickertapeError
from tickertape.names import Names
from tickertape.nats import connection, streams
from tickertape.nats.stream_sizes import DEFAULT_SIZES
from tickertape.text import MIB

SMALL = Names("", dict.fromkeys(DEFAULT_SIZES, 8 * MIB))
EVENTS = 20


def command(url: str, *arguments: str, **options: Any) -> int:
    """Run ``tickertape streams`` within this process; return its exit code."""
    action, folder = arguments
    settings = StreamsSettings(action=action, folder=Path(folder), nats_url=url, **options)
    try:
        return asyncio.run(run_streams(settings))
    except TickertapeError as error:  # as ``main`` does
        print(error, file=sys.stderr)
        return 1


async def fill(url: str, names: Names = SMALL) -> None:
    """Create the streams, and store some events."""
    client = await connection.connect_once(url, name="test")
    try:
        await streams.provision(client, names)
        for _ in range(EVENTS):
            await client.request(names.subject("log.info.x"), os.urandom(20_000))
    finally:
        await client.close()


async def state(url: str, names: Names = SMALL) -> dict[str, Any]:
    """Return creation time and last sequence of each stream."""
    async with jetstream(url) as js:
        infos = await js.streams_info()
    return {info.config.name or "": (info.created, info.state.last_seq) for info in infos}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run a server with events."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as nats:
        run(fill(nats.url))
        yield nats


@pytest.fixture(scope="module")
def original(server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a backup of that server."""
    path = tmp_path_factory.mktemp("backups") / "good"
    assert command(server.url, "backup", str(path)) == 0
    return path


@pytest.fixture
def backup(original: Path, tmp_path: Path) -> Path:
    """Copy the backup, for a test to change."""
    return Path(shutil.copytree(original, tmp_path / "backup"))


def truncate(path: Path) -> None:
    os.truncate(path / "EVENTS.snapshot", (path / "EVENTS.snapshot").stat().st_size - 1)


def extend(path: Path) -> None:
    with (path / "EVENTS.snapshot").open("ab") as file:
        file.write(b"x")


def flip(path: Path) -> None:
    data = bytearray((path / "EVENTS.snapshot").read_bytes())
    data[len(data) // 2] ^= 1
    (path / "EVENTS.snapshot").write_bytes(data)


def empty(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def link(path: Path) -> None:
    (path / "EVENTS.snapshot").rename(path.with_name("elsewhere"))
    (path / "EVENTS.snapshot").symlink_to(path.with_name("elsewhere"))


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest; ``change`` receives the entry of EVENTS."""
    document = json.loads((path / "manifest.json").read_text())
    change(next(one for one in document["streams"] if one["stream"] == "EVENTS"))
    (path / "manifest.json").write_text(json.dumps(document))


def replace_archive(path: Path, content: bytes, **changes: Any) -> None:
    """Replace the archive of EVENTS with one of which the manifest has the right digest."""
    data = framed(content)
    (path / "EVENTS.snapshot").write_bytes(data)
    found = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "content_size": len(content)}
    edit(path, lambda events: events.update(found, **changes))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (truncate, "EVENTS is damaged: its SHA-256"),
    "extended": (extend, "EVENTS is damaged: its SHA-256"),
    "a flipped bit": (flip, "EVENTS is damaged: its SHA-256"),
    "an empty archive": (lambda path: os.truncate(path / "EVENTS.snapshot", 0), "damaged: its SHA-256"),
    "a missing archive": (lambda path: os.remove(path / "LATEST.snapshot"), "LATEST.snapshot: No such file"),
    "a missing manifest": (lambda path: os.remove(path / "manifest.json"), "the backup is incomplete"),
    "an invalid manifest": (lambda path: (path / "manifest.json").write_text("{}"), "is not of the format"),
    "an empty folder": (empty, "there is no backup"),
    "a link": (link, "EVENTS.snapshot: is a symbolic link"),
    "exchanged archives": (
        lambda path: (path / "EVENTS.snapshot").write_bytes((path / "LATEST.snapshot").read_bytes()),
        "EVENTS is damaged: its SHA-256",
    ),
    "another stream": (
        lambda path: edit(path, lambda events: events["config"].update(name="ORDERS")),
        "is of stream ORDERS, not of EVENTS",
    ),
    "other subjects": (
        lambda path: edit(path, lambda events: events["config"].update(subjects=["orders.>"])),
        "does not match the contract: stream EVENTS has subjects",
    ),
    "more replicas than servers": (
        lambda path: edit(path, lambda events: events["config"].update(num_replicas=3)),
        "has 3 replicas, but the server is in no cluster; restore with --replicas 1",
    ),
    "hostile names": (
        lambda path: replace_archive(path, tar(("meta.inf", META), ("../../evil", b"x")), format="tar"),
        "damaged: it contains the file '../../evil'",
    ),
    "no archive at all": (lambda path: replace_archive(path, b"garbage" * 99), "damaged: it is no tar file"),
    "another format": (
        lambda path: replace_archive(path, tar(("meta.inf", META))),
        "the archive of EVENTS is not that of the manifest",
    ),
}


@pytest.mark.parametrize("damage", BAD)
def test_a_bad_backup_changes_nothing(
    server: NatsServer, backup: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error says what is wrong, and every stream is as before."""
    change, problem = BAD[damage]
    change(backup)
    before = run(state(server.url))
    assert command(server.url, "restore", str(backup), yes=True) == 1
    assert problem in capsys.readouterr().err
    assert run(state(server.url)) == before


def test_a_backup_of_another_deployment_is_rejected(
    server: NatsServer, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup is restored with the subject prefix that it was made with only."""
    before = run(state(server.url))
    assert command(server.url, "restore", str(backup), yes=True, subject_prefix="prod") == 1
    assert "the backup is of the subject prefix '', not of 'prod'" in capsys.readouterr().err
    assert run(state(server.url)) == before


def test_a_restore_is_confirmed(server: NatsServer, backup: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without ``--yes``, and without a terminal, nothing is deleted; the output says what would be."""
    before = run(state(server.url))
    assert command(server.url, "restore", str(backup)) == 1
    printed = capsys.readouterr()
    assert f"EVENTS       {EVENTS} messages, up to sequence {EVENTS}" in printed.out
    assert "these streams will be deleted: WATCHDOG, EVENTS" in printed.out
    assert "confirm it with --yes; nothing was changed" in printed.err
    assert run(state(server.url)) == before


@pytest.mark.parametrize(
    ("folder", "problem"),
    [
        ("taken", "has a complete backup already; choose another folder"),
        ("other", "is not empty: it has notes"),
        ("missing/backup", "No such file or directory; choose another folder"),
        ("file", "Not a directory; choose another folder"),
        ("full", "No space left on device; free space or inodes on its disk"),
        ("read-only", "Read-only file system; choose another folder, or make its disk writable"),
    ],
)
def test_a_folder_that_cannot_be_used_is_named(
    server: NatsServer, backup: Path, tmp_path: Path, folder: str, problem: str,
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    """A backup fails with the folder and the reason, and leaves nothing there."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes").touch()
    backup.rename(tmp_path / "taken")
    path = tmp_path / folder
    if folder in ("full", "read-only"):
        path.mkdir()
        options = "size=64k" if folder == "full" else "ro"
        if os.system(f"mount -t tmpfs -o {options} tickertape {path} 2>/dev/null"):
            pytest.skip("may not mount a file system")
        request.addfinalizer(lambda: os.system(f"umount {path}"))
    before = sorted(path.iterdir()) if path.is_dir() else []
    assert command(server.url, "backup", str(path)) == 1
    assert problem in capsys.readouterr().err
    assert (sorted(path.iterdir()) if path.is_dir() else []) == before


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ("max_file: 40MB", "the streams need 56.0 MiB; the account has 40.0 MiB left"),
        ("max_file: 1GB, max_streams: 5", "limited to 5 streams, but would have 7"),
        ("max_file: 1GB, store_max_stream_bytes: 4MB", "needs 8.0 MiB; the account allows 4.0 MiB"),
    ],
)
def test_the_limits_of_the_account_are_checked(
    backup: Path, tmp_path: Path, limits: str, problem: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restore that would not fit into the account starts nothing; smaller sizes can be given."""
    with NatsServer(tmp_path / "nats", config=limited_account(limits)) as nats:
        assert command(nats.url, "restore", str(backup), yes=True) == 1
        assert problem in capsys.readouterr().err
        assert run(state(nats.url)) == {}
        if "40MB" in limits:
            sizes = ["EVENTS=4MiB,LATEST=4MiB,HEALTH=4MiB,HISTORY=4MiB"]
            assert command(nats.url, "restore", str(backup), yes=True, max_bytes=sizes) == 0
            assert run(state(nats.url))["EVENTS"][1] == EVENTS


def test_the_storage_of_the_server_is_checked(
    backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restore that the server has no room for starts nothing, and leaves no stream of the check."""
    with NatsServer(tmp_path / "nats", max_file="40MB") as nats:
        assert command(nats.url, "restore", str(backup), yes=True) == 1
        assert "the server cannot reserve 56.0 MiB more: insufficient storage" in capsys.readouterr().err
        assert run(state(nats.url)) == {}
