"""When the embedded server is restarted, with a clock of the test, and the limit of its store."""

import itertools
from pathlib import Path

import pytest

from tests.support.servers.small_disk import small_disk
from tickertape.nats.storage import recovery
from tickertape.nats.storage.embedded_config import config_path, write_config
from tickertape.nats.storage.problems import StoreCause, StoreProblem
from tickertape.nats.storage.recovery import FIRST_PAUSE, MAX_PAUSE, Recovery, is_writable, storage_limit

FULL = StoreProblem(StoreCause.FULL, "its disk is full", "free space")
QUOTA = StoreProblem(StoreCause.QUOTA, "its limit max_file_store is reached", "raise it")


class Clock:
    """Clock that the test moves."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_restarts_wait_for_space_and_are_paced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up again and again leads to fewer and fewer restarts."""
    clock, writable = Clock(), False
    monkeypatch.setattr(recovery, "is_writable", lambda _: writable)
    watched = Recovery(tmp_path, clock)
    assert not watched.check(None)
    for _ in range(100):
        assert not watched.check(FULL)
        clock.now += 2.0
    writable = True
    restarts = []
    for _ in range(1800):
        if watched.check(FULL):
            restarts.append(clock.now)
        clock.now += 1.0
    pauses = [later - earlier for earlier, later in itertools.pairwise(restarts)]
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == MAX_PAUSE
    # After a long time without a problem, the next restarts are quick again.
    clock.now += 2 * MAX_PAUSE
    assert not watched.check(None)
    assert watched.check(FULL)
    clock.now += FIRST_PAUSE
    assert watched.check(FULL)


def test_a_limit_leads_to_a_restart_only_if_that_raises_it(tmp_path: Path) -> None:
    """The limit follows the free space, which a restart reads again."""
    store = tmp_path / "jetstream"
    store.mkdir()
    watched = Recovery(store, Clock())
    assert not watched.check(QUOTA, limit=1 << 60)
    assert watched.check(QUOTA, limit=1024)


def test_a_disk_is_writable_only_with_space_and_inodes(tmp_path: Path) -> None:
    """A full disk, one without inodes and a read-only one are not; after each is resolved, it is."""
    with small_disk(tmp_path / "disk", "8m", inodes=20) as disk:
        store = disk.path / "store"
        store.mkdir()
        assert is_writable(store)
        disk.fill()
        assert not is_writable(store)
        disk.free()
        assert is_writable(store)
        disk.use_inodes()
        assert not is_writable(store)
        disk.free()
        disk.remount("ro")
        assert not is_writable(store)
        disk.remount("rw")
        assert is_writable(store)
        assert not list(store.iterdir())


def test_the_limit_of_a_store_never_shrinks(tmp_path: Path) -> None:
    """Else nats-server would reject every event after a restart on a disk that is nearly full."""
    with small_disk(tmp_path / "disk", "8m") as disk:
        store = disk.path / "jetstream"
        first = storage_limit(store)
        assert 5 << 20 < first < 8 << 20
        write_config(disk.path, 4222, 8222, first)
        store.mkdir()
        (store / "1.blk").write_bytes(bytes(4 << 20))
        disk.fill()
        assert storage_limit(store) == first
        config_path(disk.path).unlink()
        assert storage_limit(store) >= 4 << 20
