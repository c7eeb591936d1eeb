"""Files that are replaced while a program runs."""

import os
from pathlib import Path

import pytest

from tickertape.process.files import create_file, read_regular_file, read_stamp, replace_text


def test_a_replaced_file_has_another_stamp(tmp_path: Path) -> None:
    """A file is read with the stamp that it has until it is replaced."""
    path = tmp_path / "file"
    replace_text(path, "one")
    data, stamp = read_regular_file(path, 100)
    assert (data, stamp) == (b"one", read_stamp(path))
    replace_text(path, "two")
    assert read_stamp(path) != stamp
    assert os.listdir(tmp_path) == ["file"]


def test_a_read_is_bounded(tmp_path: Path) -> None:
    """Of a file over the limit, one byte more is read, which shows that it is too large."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert len(read_regular_file(path, 10)[0]) == 11
    assert len(read_regular_file(path, 100)[0]) == 100


def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    """A pipe that no process writes to is rejected immediately."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="not a regular file"):
        read_regular_file(pipe, 10)
    with pytest.raises(FileNotFoundError):
        read_regular_file(tmp_path / "missing", 10)


def test_a_new_file_is_complete_and_replaces_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file is created with the permissions of the umask, or not at all, and nothing else is left."""
    path = tmp_path / "new"
    create_file(path, b"one")
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()
    with pytest.raises(FileExistsError):
        create_file(path, b"two")
    assert path.read_bytes() == b"one"
    monkeypatch.setattr(os, "link", _fail)
    with pytest.raises(OSError, match="injected"):
        create_file(tmp_path / "other", b"three")
    assert os.listdir(tmp_path) == ["new"]


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask


def _fail(*_: object) -> None:
    raise OSError("injected")
