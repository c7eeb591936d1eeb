"""Paths that are given without wildcards and are not those of files."""

import os
from pathlib import Path

import pytest
from tickertape.producers.shipper.given_paths import (
    CompressedFileGiven,
    FolderGiven,
    SpecialFileGiven,
    UnreadableFileGiven,
    check_given_paths,
)

from tests.support.shipper_desk import Desk


def test_a_folder_is_an_error(tmp_path: Path) -> None:
    """Nothing in it would be shipped."""
    with pytest.raises(FolderGiven, match=r"is a folder; pass a glob of its files"):
        check_given_paths([str(tmp_path)])


def test_a_pipe_or_device_is_an_error(tmp_path: Path) -> None:
    """It can be read as standard input."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path in (str(tmp_path / "pipe"), str(tmp_path / "link"), "/dev/null"):
        with pytest.raises(SpecialFileGiven, match=f"read it as standard input: ship - < {path}"):
            check_given_paths([path])


def test_files_globs_and_missing_paths_are_no_errors(tmp_path: Path) -> None:
    """A missing file may appear later, and a glob may match folders as well."""
    (tmp_path / "app.log").write_text("one\n")
    check_given_paths([str(tmp_path / "app.log"), str(tmp_path / "later.log"), str(tmp_path / "*")])


def test_a_missing_file_is_an_error_if_it_is_shipped_only_once(tmp_path: Path) -> None:
    """It cannot appear later, unless it is known, and was rotated."""
    missing, link = str(tmp_path / "missing.log"), tmp_path / "link.log"
    link.symlink_to(missing)
    for path in (missing, f"{missing}/app.log"):
        with pytest.raises(UnreadableFileGiven, match="does not exist; check the path"):
            check_given_paths([path], once=True)
    with pytest.raises(UnreadableFileGiven, match=f"link.log: leads to {missing}, which does not exist"):
        check_given_paths([str(link)], once=True)
    check_given_paths([missing], once=True, known={missing: None})
    check_given_paths([str(tmp_path / "*.log")], once=True)


def test_a_compressed_file_is_an_error(tmp_path: Path) -> None:
    """Its lines would not be read as text."""
    with pytest.raises(CompressedFileGiven, match="is compressed"):
        check_given_paths([str(tmp_path / "app.log.1.gz")])


def test_a_folder_that_appears_later_is_reported(tmp_path: Path) -> None:
    """It is no reason to stop shipping other files."""
    desk = Desk(tmp_path, "app.log", "other.log")
    desk.ship()
    desk.path("app.log").mkdir()
    desk.write("other.log", "one\n")
    desk.settle()
    assert desk.shipped == {"other": ["one"]}
    assert desk.complaints == [
        f"{tmp_path}/app.log: is a folder; pass a glob of its files, such as '*.log' in that folder"
    ]
    desk.close()
