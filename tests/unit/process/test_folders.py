"""Default folders exist for every user, also for one that has no home."""

import os
from pathlib import Path

import pytest

from tickertape.process.files import NO_HOME, user_folder


def test_the_variable_and_the_home_directory_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable of the specification takes precedence, and an empty one is none."""
    monkeypatch.setenv("HOME", "/home/alice")
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/state")
    assert user_folder("XDG_STATE_HOME", ".local", "state") == Path("/srv/state/tickertape")
    monkeypatch.setenv("XDG_STATE_HOME", "")
    assert user_folder("XDG_STATE_HOME", ".local", "state") == Path("/home/alice/.local/state/tickertape")


def test_a_user_without_a_home_has_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the user often has neither HOME nor an entry in the passwd file."""
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 10_001_000)
    assert user_folder("XDG_DATA_HOME", ".local", "share") == NO_HOME
