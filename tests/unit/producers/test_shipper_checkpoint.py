"""What the shipper remembers, and how it lasts."""

from pathlib import Path

import pytest

from producers.shipper.checkpoint import Checkpoint, CheckpointError, Position, Progress


def position(offset: int = 7) -> Position:
    return Position(1, 2, "generation", offset, "head", 4, "/var/log/app.log")


def test_progress_never_passes_a_hole() -> None:
    """Acknowledgements out of order move the offset only when everything before is there."""
    progress = Progress(10)
    for end in (20, 30, 40):
        progress.begin(end)
    progress.done(30)
    assert progress.offset == 10
    progress.done(20)
    assert progress.offset == 30
    progress.done(40)
    assert progress.offset == 40
    assert len(progress) == 0


def test_positions_last(tmp_path: Path) -> None:
    """What was saved is there after a restart; saving the same again writes nothing."""
    checkpoint = Checkpoint(tmp_path / "state", "a.log")
    assert checkpoint.load() == []
    assert checkpoint.save([position()])
    assert not checkpoint.save([position()])
    checkpoint.close()
    again = Checkpoint(tmp_path / "state", "a.log")
    assert again.load() == [position()]
    again.close()


def test_two_shippers_of_the_same_files_are_refused(tmp_path: Path) -> None:
    """The second one says so in one line; one of other files may share the folder."""
    first = Checkpoint(tmp_path, "a.log")
    with pytest.raises(CheckpointError, match="another shipper ships the same files"):
        Checkpoint(tmp_path, "a.log")
    Checkpoint(tmp_path, "b.log").close()
    first.close()
    Checkpoint(tmp_path, "a.log").close()


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version":2,"files":[]}', '{"version":1,"files":[{"inode":1}]}']
)
def test_a_damaged_file_is_told_and_not_overwritten(tmp_path: Path, text: str) -> None:
    """An empty or foreign file is an error: to begin anew in silence would ship everything again."""
    checkpoint = Checkpoint(tmp_path, "a.log")
    checkpoint.path.write_text(text)
    with pytest.raises(CheckpointError, match="move it away"):
        checkpoint.load()
    assert checkpoint.path.read_text() == text
    checkpoint.close()


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    """The line says what to do."""
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="--state-dir"):
        Checkpoint(tmp_path / "file" / "state", "a.log")
