"""Sequence numbers of FIX sessions that survive a restart or a crash of the monitor."""

import asyncio
import json
from pathlib import Path

import pytest
from tickertape.producers.monitor.probes.fix.sequences import (
    RESERVED,
    Sequences,
    SessionInUse,
)
from tickertape.producers.monitor.probes.result import CannotProbe

from tickertape.process.lockfile import acquire_lock

SESSION = "ME/1:THEM@[::1]:9880"


async def take(folder: Path | None, number: int, sequences: Sequences | None = None) -> list[int]:
    """Take some numbers in one session."""
    async with (sequences or Sequences()).use(SESSION, folder) as numbers:
        return [numbers.take() for _ in range(number)]


def test_numbers_continue_after_a_restart(tmp_path: Path) -> None:
    """Each session continues where the previous one ended, in a folder that is created."""
    folder = tmp_path / "new" / "fix"
    found = [asyncio.run(take(folder, number)) for number in (3, 0, 2)]
    assert found == [[1, 2, 3], [], [4, 5]]
    (file,) = folder.glob("*.json")
    assert json.loads(file.read_text()) == {"session": SESSION, "next": 6}


def test_numbers_are_kept_in_memory_without_a_folder() -> None:
    """Without a folder, numbers continue as long as the monitor runs."""
    sequences = Sequences()
    found = [asyncio.run(take(None, number, sequences)) for number in (3, 2)]
    assert found == [[1, 2, 3], [4, 5]]


def test_no_number_is_used_twice_after_a_crash(tmp_path: Path) -> None:
    """While a session is in use, its file has a number beyond those that it takes."""

    async def crash() -> None:
        async with Sequences().use(SESSION, tmp_path) as numbers:
            numbers.take()
            (file,) = tmp_path.glob("*.json")
            copy = file.read_bytes()
        file.write_bytes(copy)

    asyncio.run(crash())
    assert asyncio.run(take(tmp_path, 1)) == [1 + RESERVED]


def test_a_session_is_used_by_one_at_a_time(tmp_path: Path) -> None:
    """A session that this monitor, or another one of this host, is using cannot be used."""

    async def twice(sequences: Sequences, folder: Path | None) -> None:
        async with sequences.use(SESSION, folder):
            with pytest.raises(SessionInUse):
                await take(folder, 1, sequences)

    for folder in (None, tmp_path):
        asyncio.run(twice(Sequences(), folder))
    (lock,) = tmp_path.glob("*.lock")
    with acquire_lock(lock), pytest.raises(SessionInUse):
        asyncio.run(take(tmp_path, 1))
    assert asyncio.run(take(tmp_path, 1)) == [1]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"next": 0}', '{"next": "7"}', '{"next": true}', "\udc80"]
)
def test_damaged_numbers_are_not_used(tmp_path: Path, content: str) -> None:
    """A file that is not what was written is an error, which names it."""
    asyncio.run(take(tmp_path, 1))
    (file,) = tmp_path.glob("*.json")
    file.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CannotProbe, match=r"are damaged; delete the file, and set 'adopt: true'"):
        asyncio.run(take(tmp_path, 1))
    file.unlink()
    assert asyncio.run(take(tmp_path, 1)) == [1]


def test_numbers_that_cannot_be_kept_are_not_used(tmp_path: Path) -> None:
    """Without a place for the numbers no session is used, and the error names the setting."""
    (tmp_path / "file").touch()
    with pytest.raises(CannotProbe, match=r"cannot be kept in .*; set --fix-state-dir to a folder"):
        asyncio.run(take(tmp_path / "file" / "fix", 1))
