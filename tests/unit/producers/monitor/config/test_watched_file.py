"""The watched file of a monitor: loaded when it is stable, and rejected if it loses most gateways."""

import asyncio
import os
import time
from pathlib import Path

import pytest
from tickertape.producers.monitor.config import watched_file
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.config.watched_file import STABLE_AFTER, WatchedFile, wait_until_stable

from tests.support.virtual_loop import VirtualLoop


def gateways(first: int, last: int) -> str:
    """Return the lines of gateways with numbers as ids."""
    probes = "probes: [{kind: tcp, address: 'h:1'}]"
    return "".join(f"  - {{id: g{number}, type: t, {probes}}}\n" for number in range(first, last + 1))


class Setup:
    """Watched file with a clock that the test advances."""

    def __init__(self, folder: Path, text: str) -> None:
        self.path = folder / "gateways.yaml"
        self.now = 100.0
        self.reports: list[str] = []
        self.write(text)
        self.file = WatchedFile(self.path, self.reports.append, lambda: self.now)
        self.subjects = {gateway.subject for gateway in load(self.path).gateways}

    def write(self, text: str) -> None:
        """Write the gateways of the file."""
        self.path.write_text(f"gateways:\n{text}")

    def poll(self, seconds: float = 0.0) -> MonitorConfig | None:
        """Poll the file after a time; a file that is in effect replaces the gateways."""
        self.now += seconds
        config = asyncio.run(self.file.poll(self.subjects))
        if config is not None:
            self.subjects = {gateway.subject for gateway in config.gateways}
        return config


def test_a_file_that_is_written_in_parts_is_loaded_when_it_is_complete(tmp_path: Path) -> None:
    """No part takes effect, however many parts there are."""
    setup = Setup(tmp_path, gateways(1, 20))
    assert setup.poll() is None
    for written in range(1, 25):
        setup.write(gateways(1, written))
        assert setup.poll(STABLE_AFTER / 2) is None
    assert setup.poll(STABLE_AFTER / 2) is None
    assert setup.poll(STABLE_AFTER / 2) is not None
    assert len(setup.subjects) == 24
    assert setup.poll(STABLE_AFTER) is None
    assert setup.reports == []


@pytest.mark.parametrize(
    ("before", "after", "rejected"),
    [
        (gateways(1, 20), gateways(1, 11), False),
        (gateways(1, 20), gateways(1, 10), True),
        (gateways(1, 20), gateways(1, 1), True),
        (gateways(1, 20), gateways(11, 40), True),  # the number of gateways says nothing about their ids
        (gateways(1, 3), gateways(1, 1), True),
        (gateways(1, 2), gateways(1, 1), False),
        (gateways(1, 1), gateways(2, 2), True),
    ],
)
def test_removing_half_of_the_gateways_has_to_be_confirmed(
    before: str, after: str, rejected: bool, tmp_path: Path
) -> None:
    """Such a file is rejected; a reload that is requested after that confirms it."""
    setup = Setup(tmp_path, before)
    setup.write(after)
    setup.poll()
    setup.file.request_reload()
    assert (setup.poll(STABLE_AFTER) is None) is rejected
    assert setup.file.accepted is not rejected
    if rejected:
        assert "which may be a mistake; restore them, or confirm it with SIGHUP" in setup.reports[0]
        assert setup.poll(STABLE_AFTER) is None
        setup.file.request_reload()
        assert setup.poll() is not None
        assert setup.file.accepted
        assert setup.file.errors == 1


def test_a_confirmation_concerns_the_rejected_version_only(tmp_path: Path) -> None:
    """A file that has changed again after its rejection is judged again."""
    setup = Setup(tmp_path, gateways(1, 20))
    setup.write(gateways(1, 5))
    setup.poll()
    assert setup.poll(STABLE_AFTER) is None
    setup.write(gateways(1, 2))
    setup.file.request_reload()
    setup.poll()
    assert setup.poll(STABLE_AFTER) is None
    assert "removes 18 of 20 gateways" in setup.reports[1]


@pytest.mark.parametrize("broken", ["  - {id: [", "  - {id: a, type: t, probes: []}\n", None])
def test_a_corrected_file_ends_the_rejection(broken: str | None, tmp_path: Path) -> None:
    """Also a file that is exactly the one before: nothing changes, but the monitor is healthy again."""
    setup = Setup(tmp_path, gateways(1, 3))
    if broken is None:
        setup.path.unlink()
    else:
        setup.write(broken)
    setup.poll()
    assert setup.poll(STABLE_AFTER) is None
    assert (setup.file.accepted, setup.file.errors) == (False, 1)
    setup.write(gateways(1, 3))
    setup.poll()
    assert setup.poll(STABLE_AFTER) is not None
    assert (setup.file.accepted, setup.file.errors) == (True, 1)


@pytest.mark.parametrize(("missing", "held_back"), [(0, False), (9, False), (10, True), (20, True)])
def test_a_file_that_is_incomplete_at_the_start_removes_nothing(
    missing: int, held_back: bool, tmp_path: Path
) -> None:
    """If it lacks half of the gateways of an earlier run, a requested reload has to confirm that."""
    setup = Setup(tmp_path, gateways(1, 20))
    assert setup.file.may_remove(missing, 20) is not held_back
    assert setup.file.accepted is not held_back
    # The gateways of the earlier run count as current ones.
    setup.subjects |= {f"gateway.status.t.missing{number}" for number in range(20)}
    assert setup.poll(STABLE_AFTER) is None
    setup.file.request_reload()
    assert (setup.poll() is not None) is held_back
    assert setup.file.accepted is held_back


def test_at_the_start_a_file_is_read_when_it_is_complete(tmp_path: Path) -> None:
    """A monitor that starts while its file is being written waits, and then only for a file that is new."""
    path, reports = tmp_path / "gateways.yaml", list[str]()

    async def write(parts: int) -> None:
        for part in range(parts):
            path.write_text("x" * part)
            # On a busy machine a file would otherwise not be new any longer.
            os.utime(path, (time.time() + 3600,) * 2)
            await asyncio.sleep(STABLE_AFTER / 2)

    async def work() -> float:
        await wait_until_stable(path, pytest.fail)
        task = asyncio.create_task(write(5))
        await asyncio.sleep(0)
        await wait_until_stable(path, reports.append)
        await task
        waited = asyncio.get_running_loop().time()
        os.utime(path, (0, 0))
        await wait_until_stable(path, pytest.fail)
        assert asyncio.get_running_loop().time() == waited
        return waited

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        assert runner.run(work()) >= 4 * STABLE_AFTER / 2 + STABLE_AFTER
    assert len(reports) == 1


def test_an_unexpected_error_rejects_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect in the loader is a rejected file, and not the end of the monitor."""
    setup = Setup(tmp_path, gateways(1, 3))

    def fail(path: Path) -> MonitorConfig:
        raise AttributeError("injected")

    monkeypatch.setattr(watched_file, "load", fail)
    setup.file.request_reload()
    assert setup.poll() is None
    assert not setup.file.accepted
    assert "cannot be loaded: AttributeError: injected" in setup.reports[0]
