"""The lock on a shipper's state, the checkpoints on disk, and places of files."""

import os
from collections import Counter
from pathlib import Path

import pytest
from tickertape.producers.shipper.files.rotation import base_of, source_of
from tickertape.producers.shipper.position import FilePosition, digest, hash_before
from tickertape.producers.shipper.sinks.local_state import CheckpointError, LocalState
from tickertape.producers.shipper.sinks.sink import Checkpoint, decode

POSITION = FilePosition(1, 2, "generation", 7, "head", 4, "before", "/var/log/app.log")
CHECKPOINT = Checkpoint("/var/log/app.log", (POSITION,), Counter(INFO=3), 12.5, 9, "run", "batch")


def test_a_checkpoint_is_read_as_it_was_written() -> None:
    """Even for a path that is no text."""
    assert decode(CHECKPOINT.encode("host")) == CHECKPOINT
    odd = Checkpoint("/var/log/\udcff.log", (POSITION,))
    assert decode(odd.encode("host")).path == odd.path


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"version":1}', b'{"version":2,"files":[]}', b"\xff"])
def test_what_is_no_checkpoint_is_told(body: bytes) -> None:
    """Another version, or anything else."""
    with pytest.raises(ValueError, match=r"."):
        decode(body)


def test_checkpoints_last(tmp_path: Path) -> None:
    """What was saved is there after a restart; saving the same again writes nothing."""
    bodies = {CHECKPOINT.path: CHECKPOINT.encode("host")}
    state = LocalState(tmp_path / "state", "a.log")
    assert state.load() == {}
    assert state.save(bodies)
    assert not state.save(bodies)
    state.close()
    again = LocalState(tmp_path / "state", "a.log")
    assert again.load() == {CHECKPOINT.path: CHECKPOINT}
    again.close()


def test_two_shippers_of_the_same_files_are_refused(tmp_path: Path) -> None:
    """The second one says so in one line; one of other files may share the folder."""
    first = LocalState(tmp_path, "a.log")
    with pytest.raises(CheckpointError, match="another shipper ships the same files"):
        LocalState(tmp_path, "a.log")
    LocalState(tmp_path, "b.log").close()
    first.close()
    LocalState(tmp_path, "a.log").close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":9,"checkpoints":[]}', '{"version":2,"checkpoints":["e30="]}']
)
def test_a_damaged_file_is_told_and_not_overwritten(tmp_path: Path, text: str) -> None:
    """An empty or foreign file is an error: to begin anew in silence would ship everything again."""
    state = LocalState(tmp_path, "a.log")
    state.path.write_text(text)
    with pytest.raises(CheckpointError, match="move it away"):
        state.load()
    assert state.path.read_text() == text
    state.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The line says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="--state-dir"):
        LocalState(tmp_path / "file" / "state", "a.log")


def test_a_place_fits_the_file_that_has_grown_and_no_other(tmp_path: Path) -> None:
    """A file of the same first kilobyte, and one that was truncated, are told apart."""
    same = b"banner\n" * 200
    path = tmp_path / "app.log"
    path.write_bytes(same + b"one\n")

    def matches() -> bool:
        handle = os.open(path, os.O_RDONLY)
        try:
            return position.matches(handle)
        finally:
            os.close(handle)

    handle = os.open(path, os.O_RDONLY)
    size = len(same) + 4
    position = FilePosition(1, 2, "g", size, digest(same[:1024]), 1024, hash_before(handle, size), str(path))
    os.close(handle)
    assert matches()
    path.write_bytes(same + b"one\ntwo\n")
    assert matches()
    path.write_bytes(same + b"eno\ntwo\n")
    assert not matches()
    path.write_bytes(same)
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
def test_rotated_names_lead_to_the_name_they_were(path: str, base: str | None, source: str) -> None:
    """Numbers and dates, before or behind the ending."""
    assert (base_of(path), source_of(path)) == (base, source)
