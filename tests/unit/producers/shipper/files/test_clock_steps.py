"""The system clock is set by an hour: what waits for seconds waits for these seconds."""

from pathlib import Path

import pytest
from tickertape.producers.shipper.throttle import REPORT_INTERVAL, ThrottleSettings

from tests.support.shipper_desk import PLAIN, Desk

STEPS = pytest.mark.parametrize("step", [3600.0, -3600.0])


@STEPS
def test_half_a_line_waits_for_its_other_half(step: float, tmp_path: Path) -> None:
    """A step ahead does not split a line, and a step back does not hold it for an hour."""
    desk = Desk(tmp_path)
    desk.write("app.log", "half ")
    desk.ship()
    desk.set_clock(step)
    desk.ship(1.0)
    assert desk.shipped == {}
    desk.write("app.log", "of a line\nhalf")
    desk.ship(1.0)
    desk.set_clock(step)
    desk.ship(1.0)
    assert desk.shipped == {"app": ["half of a line"]}
    desk.ship(61.0)
    assert desk.shipped == {"app": ["half of a line", "half"]}
    desk.close()


@STEPS
def test_a_rotated_file_is_closed_after_its_grace(step: float, tmp_path: Path) -> None:
    """What its writer adds just after the rotation is shipped, and the successor follows within seconds."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one\n")
    desk.ship()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", "three\n")
    desk.ship()
    desk.set_clock(step)
    desk.ship(0.5)
    desk.write("app.log.1", "two\n")
    desk.ship(0.5)
    for _ in range(3):
        desk.ship(3.0)
    assert desk.shipped == {"app": ["one", "three", "two"]}
    desk.close()


@STEPS
@pytest.mark.parametrize("gone", [False, True], ids=["remembered", "forgotten"])
@pytest.mark.parametrize("scans", [False, True], ids=["before the scan", "after the scan"])
def test_a_file_whose_time_is_in_the_future_is_shipped_once(
    scans: bool, gone: bool, step: float, tmp_path: Path
) -> None:
    """A rotated file that looks newer than the last scan is known; one that was rotated unseen is shipped."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one\n")
    desk.ship()
    desk.rename("app.log", "app.log.1")
    desk.write("app.log", "two\n")
    if scans:
        desk.ship()
    if gone:
        desk.settle()
    desk.set_clock(step)
    desk.ship()
    for number, text in enumerate(["three", "four", "five"], 2):
        desk.rename("app.log", f"app.log.{number}")
        desk.write("app.log", f"un{text}\n")  # not seen before it is rotated
        desk.rename("app.log", f"app.log.{number}a")
        desk.rename(f"app.log.{number}a", f"app.log.{number + 10}")
        desk.write("app.log", f"{text}\n")
        desk.settle()
    assert desk.shipped == {"app": ["one", "two", "unthree", "three", "unfour", "four", "unfive", "five"]}
    desk.close()


@STEPS
def test_a_file_that_cannot_be_read_is_tried_again(step: float, tmp_path: Path) -> None:
    """The pause after an error keeps its length."""
    desk = Desk(tmp_path)
    desk.write("app.log", "one\n")
    desk.ship()
    (stream,) = desk.discovery.streams.values()
    stream.back_off()
    desk.set_clock(step)
    assert stream.is_backing_off
    desk.now += 60
    assert not stream.is_backing_off
    desk.close()


@STEPS
def test_suppressed_events_are_counted_and_reported_in_time(step: float, tmp_path: Path) -> None:
    """A rate limit neither opens nor closes with the clock."""
    desk = Desk(tmp_path, parsing=PLAIN, throttle=ThrottleSettings(rates={"INFO": 1.0}))
    desk.write("app.log", "a\nb\nc\n")
    desk.ship()
    desk.set_clock(step)
    desk.write("app.log", "d\ne\n")
    desk.ship()
    assert desk.shipped == {"app": ["a"]}
    desk.ship(REPORT_INTERVAL)
    assert desk.shipped["app"][1].startswith("suppressed 4 events of level INFO")
    desk.close()
