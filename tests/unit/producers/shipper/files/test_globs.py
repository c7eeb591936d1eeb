"""Expansion of globs: as ``glob.glob`` does it, except for errors and for folders that links repeat."""

import errno
import glob
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tickertape.producers.shipper.files.globs import expand, fixed_folder, may_pass, pattern_of

NAMES = st.sampled_from(["a", "b", ".a", "a.log", "b.log", "a[1]", "ab"])
PARTS = st.sampled_from(["*", "**", "?", "a", "a*", "*.log", ".*", "[ab]", "[!a]*", "b.log", "a**"])
WILDCARDS = "*?["


def fail(path: str, error: OSError) -> None:
    raise AssertionError(f"{path}: {error}")


def files(paths: list[str]) -> list[str]:
    return [path for path in paths if os.path.isfile(path)]


@settings(max_examples=150, deadline=None)
@given(
    created=st.lists(st.lists(NAMES, min_size=1, max_size=4), max_size=8),
    linked=st.lists(st.tuples(NAMES, NAMES), max_size=2),
    parts=st.lists(PARTS, min_size=1, max_size=4),
)
def test_a_glob_matches_the_same_files_as_the_standard_library(
    created: list[list[str]], linked: list[tuple[str, str]], parts: list[str]
) -> None:
    """A pattern matches the same files, and under the same paths unless a link repeats a folder."""
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        for path in created:
            file = top.joinpath(*path)
            if not any(parent.is_file() for parent in file.parents) and not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("")
        for link, target in linked:
            # Without a loop, in which ``glob.glob`` would list each folder forty times.
            (top / "links").mkdir(exist_ok=True)
            if not os.path.lexists(top / "links" / link):
                (top / "links" / link).symlink_to(top / target)
        pattern = "/".join([name, *parts])
        expected = files(sorted(set(glob.glob(pattern, recursive=True))))
        found = files([path for path, _ in expand(pattern, fail)])
        assert {os.path.realpath(path) for path in found} == {os.path.realpath(path) for path in expected}
        assert set(found) <= set(expected)
        if "**" not in parts:
            assert found == expected
        if any(character in part for part in parts for character in WILDCARDS):
            assert found == sorted(found)
            assert [path for path in found if not pattern_of([pattern]).fullmatch(path)] == []
        assert all(path.startswith(fixed_folder(pattern)) for path in found)


def test_links_that_lead_back_are_entered_once(tmp_path: Path) -> None:
    """Links to a parent do not multiply the folders, and a file has its path without links."""
    for number in range(8):
        (tmp_path / f"loop{number}").symlink_to(tmp_path)
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "app.log").write_text("")
    (tmp_path / "a").symlink_to(tmp_path / "z")
    found = expand(f"{tmp_path}/**/*.log", fail)
    assert found == [(f"{tmp_path}/z/app.log", False)]


def test_a_link_is_marked_and_entered_only_with_consent(tmp_path: Path) -> None:
    """A path through a link is marked, and a folder that must not be entered is not listed."""
    (tmp_path / "logs" / "a").mkdir(parents=True)
    (tmp_path / "logs" / "a" / "app.log").write_text("")
    (tmp_path / "logs" / "b").symlink_to(tmp_path / "logs" / "a")
    (tmp_path / "logs" / "a" / "link.log").symlink_to("app.log")
    linked = {"a/app.log": False, "a/link.log": True, "b/app.log": True, "b/link.log": True}
    for pattern in ("*/*.log", "*/[al]*.log"):
        found = expand(f"{tmp_path}/logs/{pattern}", fail)
        assert {os.path.relpath(path, tmp_path / "logs"): link for path, link in found} == linked
    asked: list[str] = []

    def refuse(path: str) -> bool:
        asked.append(path)
        return False

    for pattern in ("*/*.log", "**/*.log", "*/app.log"):
        kept = expand(f"{tmp_path}/logs/{pattern}", fail, refuse)
        assert all("/a/" in path for path, _ in kept)
    assert asked == [f"{tmp_path}/logs/b"] * 3


@pytest.mark.parametrize("call", ["scandir", "stat", "lstat"])
@pytest.mark.parametrize("pattern", ["*/*.log", "**/*.log", "*/app.log"])
def test_a_folder_that_cannot_be_listed_is_reported(
    call: str, pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error in one folder is reported with that folder, and the others are listed."""
    for name in ("bad", "good"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "app.log").write_text("")
    real: Callable[..., Any] = getattr(os, call)

    def failing(path: Any, *arguments: Any, **options: Any) -> Any:
        if os.fspath(path).startswith(f"{tmp_path}/bad"):
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, call, failing)
    reported: list[str] = []
    found = expand(f"{tmp_path}/{pattern}", lambda folder, _: reported.append(folder))
    assert f"{tmp_path}/good/app.log" in [path for path, _ in found]
    if reported:
        assert set(reported) == {f"{tmp_path}/bad"}
    else:
        assert f"{tmp_path}/bad/app.log" in [path for path, _ in found], "this call is not needed"


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EINTR, errno.ENOMEM]
)
def test_errors_that_say_nothing_about_a_path_may_pass(number: int) -> None:
    """Only errors that say something about the path itself are no reason to try again."""
    assert may_pass(OSError(number, "error"))
    assert not may_pass(FileNotFoundError(errno.ENOENT, "error"))
    assert not may_pass(PermissionError(errno.EACCES, "error"))
