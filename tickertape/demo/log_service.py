"""The services of the demo: they write two logs as real programs do, and rotate them by rename.

``python -m tickertape.demo.log_service --logs logs --moods moods.json``

``gateway_manager.log`` is plain text with bursts, ``order_router.log`` is a JSON object per line.

Invariants:

1. A line is written whole, with one system call; a signal never leaves half of one.
2. Each log has at most ``KEEP`` older files beside it, so that a demo may run for days.
"""

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Final

from tickertape.demo.fleet import Mood, read_moods
from tickertape.demo.log_lines import Manager, Record, Router

KEEP: Final = 3
ROTATE_EVERY: Final = (3.0, 6.0)
"""Seconds; absurdly often, so that one sees that nothing is lost by it."""

BURST_EVERY: Final = (25.0, 35.0)
FIRST_BURST: Final = 20.0
BURST_LINES: Final = 25
"""Lines of a burst that are written at once, every ``BURST_PAUSE`` seconds."""

BURST_PAUSE: Final = 0.04
MANAGER_PAUSE: Final = (0.08, 0.22)
"""Seconds between two lines: six or seven a second."""

ROUTER_PAUSE: Final = (0.2, 0.7)


class RotatedLog:
    """A log file that is renamed to ``.1`` now and then; ``.1`` becomes ``.2``, and so on.

    Args:
        path: of the file that is written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, text: str) -> None:
        """Append whole lines."""
        self._file.write(f"{text}\n".encode())

    def rotate(self) -> None:
        """Begin a new file; the oldest one is deleted."""
        for number in range(KEEP, 0, -1):
            older = self._older(number)
            if number == KEEP:
                older.unlink(missing_ok=True)
            elif older.exists():
                older.rename(self._older(number + 1))
        self._path.rename(self._older(1))
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _older(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def plain(record: Record, now: float) -> str:
    """A record as text, in local time as most loggers write it."""
    moment = datetime.fromtimestamp(now).astimezone()
    stamp = f"{moment:%Y-%m-%d %H:%M:%S}.{moment.microsecond // 1000:03d}"
    return "\n".join((f"{stamp} {record.level:<5} [{record.gateway}] {record.message}", *record.more))


def json_line(record: Record, now: float) -> str:
    """A record as a JSON object."""
    stamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    body = {
        "timestamp": stamp.replace("+00:00", "Z"),
        "level": record.level.lower(),
        "service": "order_router",
        "message": record.message,
        "gateway": record.gateway,
        **record.fields,
    }
    return json.dumps(body, ensure_ascii=False)


class Diary:
    """Both services, one line at a time.

    Args:
        logs: folder of the files.
        moods: file that says how the gateways are.
        random: where chance comes from.
    """

    def __init__(self, logs: Path, moods: Path, random: Random) -> None:
        self._random = random
        self._moods_path = moods
        self._moods: dict[str, Mood] = read_moods(moods)
        self._manager = Manager(random)
        self._router = Router(random)
        self._manager_log = RotatedLog(logs / "gateway_manager.log")
        self._router_log = RotatedLog(logs / "order_router.log")
        self._burst: Iterator[Record] | None = None
        # What is done when next; each task returns the seconds until its next turn.
        self._turns: list[tuple[Callable[[float], float], float]] = [
            (self._write_changes, 0.0),
            (self._write_manager, 0.0),
            (self._write_router, 0.0),
            (self._write_burst, FIRST_BURST),
            (lambda _: self._rotate(self._manager_log), random.uniform(*ROTATE_EVERY)),
            (lambda _: self._rotate(self._router_log), random.uniform(*ROTATE_EVERY)),
        ]

    def advance(self, since_start: float) -> float:
        """Do what is due, and return when the next thing is, in seconds since the start."""
        self._turns = [
            (work, at if at > since_start else since_start + work(time.time())) for work, at in self._turns
        ]
        return min(at for _, at in self._turns)

    def _write_changes(self, now: float) -> float:
        before, self._moods = self._moods, read_moods(self._moods_path)
        for record in self._manager.changes(before, self._moods):
            self._manager_log.write(plain(record, now))
        return 0.5

    def _write_manager(self, now: float) -> float:
        self._manager_log.write(plain(self._manager.everyday(self._moods), now))
        return self._random.uniform(*MANAGER_PAUSE)

    def _write_router(self, now: float) -> float:
        self._router_log.write(json_line(self._router.everyday(self._moods), now))
        return self._random.uniform(*ROUTER_PAUSE)

    def _write_burst(self, now: float) -> float:
        self._burst = self._burst or self._manager.burst()
        for _ in range(BURST_LINES):
            record = next(self._burst, None)
            if record is None:
                self._burst = None
                return self._random.uniform(*BURST_EVERY)
            self._manager_log.write(plain(record, now))
        return BURST_PAUSE

    def _rotate(self, log: RotatedLog) -> float:
        log.rotate()
        return self._random.uniform(*ROTATE_EVERY)


def main() -> None:
    """Read the arguments, then write until a signal ends the process."""
    parser = argparse.ArgumentParser(prog="tickertape.demo.log_service")
    parser.add_argument("--logs", type=Path, required=True, help="folder of the logs")
    parser.add_argument("--moods", type=Path, required=True, help="JSON file that says how the gateways are")
    parser.add_argument("--seed", type=int, help="same number, same lines")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(os.EX_OK))
    diary = Diary(arguments.logs, arguments.moods, Random(arguments.seed))  # noqa: S311
    started = time.monotonic()
    while True:
        next_at = diary.advance(time.monotonic() - started)
        time.sleep(max(0.0, started + next_at - time.monotonic()))


if __name__ == "__main__":
    main()
