"""Local state of a shipper: its lock, checkpoints on disk, and positions in files."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from tickertape.producers.shipper.files.rotation import base_of, source_of
from tickertape.producers.shipper.position import FilePosition, digest, hash_before
from tickertape.producers.shipper.sinks.local_state import CheckpointError, LocalState
from tickertape.producers.shipper.sinks.sink import Checkpoint, decode

POSITION = FilePosition(1, 2, "generation", 7, "head", 4, "before", "/var/log/app.log")
CHECKPOINT = Checkpoint("/var/log/app.log", (POSITION,), Counter(INFO=3), 12.5, 9, "run", "batch")


def test_a_checkpoint_is_decoded_as_it_was_encoded() -> None:
    """A checkpoint survives encoding and decoding, even for a path that is not valid UTF-8."""
    assert decode(CHECKPOINT.encode("host")) == CHECKPOINT
    non_utf8 = Checkpoint("/var/log/\udcff.log", (POSITION,))
    assert decode(non_utf8.encode("host")).path == non_utf8.path


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"version":1}', b'{"version":2,"files":[]}', b"\xff"])
def test_an_invalid_checkpoint_is_rejected(body: bytes) -> None:
    """Anything other than a checkpoint of the current version is rejected."""
    with pytest.raises(ValueError, match=r"."):
        decode(body)


def test_checkpoints_survive_a_restart(tmp_path: Path) -> None:
    """Checkpoints are loaded after a restart, and saving unchanged ones writes nothing."""
    bodies = {CHECKPOINT.path: CHECKPOINT.encode("host")}
    state = LocalState(tmp_path / "state", "a.log")
    assert state.load() == {}
    assert state.save(bodies)
    assert not state.save(bodies)
    state.close()
    reopened = LocalState(tmp_path / "state", "a.log")
    assert reopened.load() == {CHECKPOINT.path: CHECKPOINT}
    reopened.close()


def test_a_second_shipper_of_the_same_files_is_rejected(tmp_path: Path) -> None:
    """A second shipper of the same files is rejected; a shipper of other files may use the same folder."""
    first = LocalState(tmp_path, "a.log")
    with pytest.raises(CheckpointError, match="another shipper ships the same files"):
        LocalState(tmp_path, "a.log")
    LocalState(tmp_path, "b.log").close()
    first.close()
    LocalState(tmp_path, "a.log").close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":9,"checkpoints":[]}', '{"version":2,"checkpoints":["e30="]}']
)
def test_a_damaged_checkpoint_file_is_reported_and_kept(tmp_path: Path, text: str) -> None:
    """A damaged or foreign checkpoint file is an error and is not overwritten, because starting without it
    would silently ship everything again.
    """
    state = LocalState(tmp_path, "a.log")
    state.path.write_text(text)
    with pytest.raises(CheckpointError, match="move it away"):
        state.load()
    assert state.path.read_text() == text
    state.close()


def test_an_unwritable_folder_is_reported(tmp_path: Path) -> None:
    """The error of an unwritable folder names the option that changes it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="--state-dir"):
        LocalState(tmp_path / "file" / "state", "a.log")


def test_a_position_matches_only_its_file(tmp_path: Path) -> None:
    """A position matches a file that has grown, but not one that was truncated or that only has the same
    first kilobyte.
    """
    banner = b"banner\n" * 200
    path = tmp_path / "app.log"
    path.write_bytes(banner + b"one\n")

    def matches() -> bool:
        handle = os.open(path, os.O_RDONLY)
        try:
            return position.matches(handle)
        finally:
            os.close(handle)

    handle = os.open(path, os.O_RDONLY)
    size = len(banner) + 4
    position = FilePosition(
        1, 2, "g", size, digest(banner[:1024]), 1024, hash_before(handle, size), str(path)
    )
    os.close(handle)
    assert matches()
    path.write_bytes(banner + b"one\ntwo\n")
    assert matches()
    path.write_bytes(banner + b"eno\ntwo\n")
    assert not matches()
    path.write_bytes(banner)
    assert not matches()


@pytest.mark.parametrize(
    ("path", "base", "source"),
    [
        ("/l/app.log", None, "app"),
        ("/l/app.log.1", "/l/app.log", "app"),
        ("/l/app.log-20260101", "/l/app.log", "app"),
        ("/l/app-2026-01-01.log", "/l/app.log", "app"),
        ("/l/app.log.2026-01-01_10-00-00", "/l/app.log", "app"),
        ("/l/app", None, "app"),
        ("/l/.hidden", None, ".hidden"),
    ],
)
def test_rotated_names_yield_the_original_name(path: str, base: str | None, source: str) -> None:
    """The original name is found if a number or date is before or after the suffix."""
    assert (base_of(path), source_of(path)) == (base, source)


@pytest.mark.parametrize("link", [os.symlink, os.link])
@pytest.mark.parametrize("suffix", [".tmp", ".json"])
def test_a_planted_link_is_not_written_through(
    link: Callable[[Path, Path], None], suffix: str, tmp_path: Path
) -> None:
    """Checkpoints replace a link that was planted in the folder, and do not change the file it leads to."""
    victim = tmp_path / "victim"
    victim.write_text("victim")
    state = LocalState(tmp_path / "state", "a.log")
    link(victim, state.path.with_suffix(suffix))
    assert state.save({CHECKPOINT.path: CHECKPOINT.encode("host")})
    assert state.load() == {CHECKPOINT.path: CHECKPOINT}
    assert victim.read_text() == "victim"
    assert not state.path.is_symlink()
    state.close()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_planted_lock_is_not_written_through(link: Callable[[Path, Path], None], tmp_path: Path) -> None:
    """A lock that is a link to another file is an error; that file keeps its content."""
    victim = tmp_path / "victim"
    victim.write_text("victim")
    state = LocalState(tmp_path / "state", "a.log")
    lock = state.path.with_suffix(".lock")
    state.close()
    lock.unlink()
    link(victim, lock)
    with pytest.raises(CheckpointError, match="cannot be written"):
        LocalState(tmp_path / "state", "a.log")
    assert victim.read_text() == "victim"


def test_a_planted_checkpoint_file_is_not_followed(tmp_path: Path) -> None:
    """A link or a pipe in the place of the checkpoints is an error, and does not block."""
    state = LocalState(tmp_path / "state", "a.log")
    state.path.symlink_to("/proc/self/environ")
    with pytest.raises(CheckpointError, match="cannot be read"):
        state.load()
    state.path.unlink()
    os.mkfifo(state.path)
    with pytest.raises(CheckpointError, match="not a checkpoint file"):
        state.load()
    state.close()


def checkpoint(number: int, count: int = 1) -> Checkpoint:
    """Return a checkpoint of one of many files."""
    return Checkpoint(f"/l/{number}.log", count=count)


def write_records(folder: Path, changes: int) -> tuple[dict[str, Checkpoint], int, Path]:
    """Change checkpoints; return the last of each, the bytes that one change has written, and the journal."""
    state = LocalState(folder, "a.log")
    last = {one.path: one for one in map(checkpoint, range(200))}
    bodies = {path: one.encode("host") for path, one in last.items()}
    written = 0
    for number in range(changes):
        changed = checkpoint(number % 7, number + 2)
        last[changed.path], bodies[changed.path] = changed, changed.encode("host")
        before = state.journal_path.stat().st_size if state.journal_path.exists() else 0
        state.record(bodies, changed.path)
        written = state.journal_path.stat().st_size - before
    state.close()
    return last, written, state.journal_path


def load(folder: Path) -> dict[str, Checkpoint]:
    state = LocalState(folder, "a.log")
    try:
        return state.load()
    finally:
        state.close()


def test_a_change_is_written_alone(tmp_path: Path) -> None:
    """A change costs the same however many checkpoints there are, and is found after a restart."""
    last, written, _ = write_records(tmp_path, 20)
    assert load(tmp_path) == last
    assert 0 < written < 2 * len(checkpoint(1).encode("host"))


def test_a_long_journal_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal does not grow without bound."""
    monkeypatch.setattr("tickertape.producers.shipper.sinks.local_state.MIN_JOURNAL_BYTES", 1_000)
    last, _, journal = write_records(tmp_path, 500)
    assert load(tmp_path) == last
    assert journal.stat().st_size < 60_000


def test_an_incomplete_last_record_is_ignored(tmp_path: Path) -> None:
    """A crash while it was written leaves the checkpoint before it; nothing newer was acknowledged."""
    last, _, journal = write_records(tmp_path, 8)
    changed = checkpoint(0, 9)
    assert last[changed.path] == changed
    data = journal.read_bytes()
    for cut in (1, 10, len(data.splitlines()[-1])):
        journal.write_bytes(data[:-cut])
        assert load(tmp_path) == {**last, changed.path: checkpoint(0, 2)}


def test_a_damaged_record_is_an_error(tmp_path: Path) -> None:
    """The records after it are acknowledged, and must not be shipped again."""
    _, _, journal = write_records(tmp_path, 8)
    data = bytearray(journal.read_bytes())
    data[20] ^= 1
    journal.write_bytes(data)
    with pytest.raises(CheckpointError, match="record 1 of its journal is damaged"):
        load(tmp_path)


def test_an_old_journal_changes_nothing(tmp_path: Path) -> None:
    """A crash between writing all checkpoints and replacing the journal leaves the journal of older ones."""
    last, _, journal = write_records(tmp_path, 8)
    old = journal.read_bytes()
    state = LocalState(tmp_path, "a.log")
    newer = {path: Checkpoint(path, count=one.count + 5) for path, one in last.items()}
    state.save({path: one.encode("host") for path, one in newer.items()})
    state.close()
    journal.write_bytes(old)
    assert load(tmp_path) == newer
