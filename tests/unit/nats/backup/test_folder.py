"""A backup's folder is complete or recognizable as incomplete, and no other file in it is touched."""

import os
from pathlib import Path

import pytest

from tests.unit.nats.backup.test_manifest import MANIFEST
from tickertape.nats.backup.folder import MANIFEST as NAME
from tickertape.nats.backup.folder import BackupFolder
from tickertape.nats.backup.manifest import MAX_BYTES, BackupError


def make(path: Path, data: bytes = b"archive") -> str:
    """Make a complete backup with one archive, and return its digest."""
    with BackupFolder.create(path) as folder:
        archive = folder.create_archive("EVENTS")
        archive.write(data[:3])
        archive.write(data[3:])
        archive.finish()
        archive.close()
        folder.finish(MANIFEST)
        return archive.sha256


def test_a_backup_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Manifest and archive have their content and digest, and only their owner can read them."""
    path = tmp_path / "backup"
    digest = make(path)
    with BackupFolder.open(path) as folder:
        assert folder.read_manifest() == MANIFEST
        archive = folder.open_archive("EVENTS")
        assert (archive.read(4), archive.read(100), archive.read(1)) == (b"arch", b"ive", b"")
        assert (archive.sha256, archive.size, archive.position) == (digest, 7, 7)
        archive.close()
    assert path.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in path.iterdir()} == {0o600}


def test_a_complete_backup_is_never_overwritten(tmp_path: Path) -> None:
    """Neither a new backup nor a failed one touches a folder with a manifest."""
    make(tmp_path / "backup")
    before = {file: file.read_bytes() for file in (tmp_path / "backup").iterdir()}
    with pytest.raises(BackupError, match="has a complete backup already"):
        BackupFolder.create(tmp_path / "backup")
    with BackupFolder.open(tmp_path / "backup") as folder:
        folder.discard()
    assert {file: file.read_bytes() for file in (tmp_path / "backup").iterdir()} == before


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    """A file that is not of a backup makes the folder unusable for one."""
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "EVENTS.snapshot").write_text("perhaps mine, too")
    with pytest.raises(BackupError, match=r"is not empty: it has notes\.txt"):
        BackupFolder.create(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("left", ["EVENTS.snapshot", "EVENTS.snapshot.partial", f"{NAME}.partial"])
def test_an_incomplete_backup_is_recognized_and_replaced(tmp_path: Path, left: str) -> None:
    """What a killed backup left behind cannot be restored, and is removed by the next backup."""
    (tmp_path / left).write_text("half")
    with pytest.raises(BackupError, match="the backup is incomplete"):
        BackupFolder.open(tmp_path)
    make(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"EVENTS.snapshot", NAME}


def test_a_failed_backup_leaves_nothing(tmp_path: Path) -> None:
    """Its files are removed; the folder only if it did not exist before."""
    for path in (tmp_path / "new", tmp_path):
        with BackupFolder.create(path) as folder:
            archive = folder.create_archive("EVENTS")
            archive.write(b"half")
            archive.close()
            folder.discard()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_backup_is_named(tmp_path: Path) -> None:
    """An empty folder, and one that does not exist, are no backups."""
    with pytest.raises(BackupError, match="there is no backup"):
        BackupFolder.open(tmp_path)
    with pytest.raises(FileNotFoundError):
        BackupFolder.open(tmp_path / "missing")


def test_two_commands_do_not_share_a_folder(tmp_path: Path) -> None:
    """While a backup is written, neither another one nor a restore uses its folder; readers share it."""
    with BackupFolder.create(tmp_path), pytest.raises(BackupError, match="another command uses"):
        BackupFolder.create(tmp_path)
    make(tmp_path)
    with BackupFolder.open(tmp_path), BackupFolder.open(tmp_path):
        pass


@pytest.mark.parametrize("name", ["EVENTS.snapshot", NAME])
@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_only_regular_files_are_read(tmp_path: Path, name: str, kind: str) -> None:
    """A link is not followed, and a pipe does not block."""
    make(tmp_path)
    elsewhere = tmp_path.with_name("elsewhere")
    (tmp_path / name).rename(elsewhere)
    if kind == "link":
        (tmp_path / name).symlink_to(elsewhere)
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).mkdir()
    with BackupFolder.open(tmp_path) as folder:
        read = folder.read_manifest if name == NAME else lambda: folder.open_archive("EVENTS")
        with pytest.raises(OSError, match=r"symbolic link|not a regular"):
            read()


def test_a_link_is_not_written_through(tmp_path: Path) -> None:
    """A link that was planted where an archive will be is removed, not followed."""
    target = tmp_path / "target"
    path = tmp_path / "backup"
    path.mkdir()
    (path / "EVENTS.snapshot.partial").symlink_to(target)
    make(path)
    assert not target.exists()


@pytest.mark.parametrize(("data", "problem"), [(b"{", "is not JSON"), (b" " * (MAX_BYTES + 1), "too large")])
def test_an_invalid_manifest_is_named(tmp_path: Path, data: bytes, problem: str) -> None:
    """The error names the file and what is wrong with it."""
    (tmp_path / NAME).write_bytes(data)
    with BackupFolder.open(tmp_path) as folder, pytest.raises(BackupError, match=rf"{NAME} .*{problem}"):
        folder.read_manifest()
