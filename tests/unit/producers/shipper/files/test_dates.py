"""Dates that a line takes from earlier lines of its file, across restarts in the middle of the file."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from tickertape.producers.shipper.parsing.parser import ParseSettings

from tests.support.shipper_desk import T0, Desk

SETTINGS = ParseSettings(format="plain", multiline="off", zone=ZoneInfo("UTC"))
START = datetime.fromtimestamp(T0, UTC).replace(second=0, microsecond=0) - timedelta(days=3)


def w3c_log() -> Iterator[tuple[str, datetime | None]]:
    """Yield the lines of three days, of which only a header has the date, with the time of each."""
    yield f"#Date: {START:%Y-%m-%d %H:%M:%S}", START
    for number in range(3_000):
        moment = START + timedelta(seconds=number * 86)
        yield f"{moment:%H:%M:%S} GET /{number}", moment


def ordered_log() -> Iterator[tuple[str, datetime | None]]:
    """Yield lines of which only the first shows that the day precedes the month."""
    first = datetime(2024, 1, 31, 10, 0, tzinfo=UTC)
    for number in range(3_000):
        moment = first + timedelta(hours=number)
        is_known = moment.day > 12 or number
        yield f"{moment:%d/%m/%Y %H:%M:%S} line {number}", moment if is_known else first


@pytest.mark.parametrize("log", [w3c_log, ordered_log])
@pytest.mark.parametrize("kills", [False, True])
def test_dates_are_known_after_a_restart(tmp_path: Path, log: object, kills: bool) -> None:
    """However often the shipper is killed in the middle of a file, times have the same dates."""
    assert callable(log)
    lines = list(log())
    desk = Desk(tmp_path, parsing=SETTINGS)
    desk.write("app.log", "".join(f"{line}\n" for line, _ in lines))
    while len(desk.bodies) < len(lines):
        desk.ship(1.0, batches=1)
        if kills:
            desk.kill()
    desk.close()
    found = [body["timestamp"] for body in desk.bodies]
    assert found == [f"{moment:%Y-%m-%dT%H:%M:%S}.000Z" for _, moment in lines]


def test_times_of_the_day_in_a_backlog_cross_midnight(tmp_path: Path) -> None:
    """Without any date, the last write of the file dates its last line, and lines go back from there."""
    desk = Desk(tmp_path, parsing=SETTINGS)
    last = datetime.fromtimestamp(T0, UTC).replace(microsecond=0)
    moments = [last - timedelta(minutes=30 * number) for number in range(46, -1, -1)]
    desk.write("app.log", "".join(f"{moment:%H:%M:%S} line\n" for moment in moments))
    desk.ship(3600.0)
    desk.close()
    found = [body["timestamp"] for body in desk.bodies]
    assert found == [f"{moment:%Y-%m-%dT%H:%M:%S}.000Z" for moment in moments]
