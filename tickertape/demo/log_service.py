"""Simulated services of the demo, which write two logs and rotate them by renaming, as real programs do.

``python -m tickertape.demo.log_service --logs logs --conditions conditions.json``

``gateway_manager.log`` is plain text with bursts, ``order_router.log`` has a JSON object per line.

Invariants:

1. Every line is written with one system call; a signal never leaves a partial line.
2. Each log keeps at most ``KEEP`` rotated files, so that a demo can run for days.
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

from tickertape.demo.fleet import Condition, read_conditions
from tickertape.demo.log_lines import GatewayManager, OrderRouter, Record

KEEP: Final = 3
"""Number of rotated files to keep of each log."""

ROTATE_EVERY: Final = (3.0, 6.0)
"""Seconds between rotations: far more often than in production, to show that no line is lost."""

BURST_EVERY: Final = (25.0, 35.0)
"""Seconds from the end of a burst to the start of the next."""

FIRST_BURST: Final = 20.0
"""Seconds from the start to the first burst."""

BURST_LINES: Final = 25
"""Number of burst lines that are written together, every ``BURST_PAUSE`` seconds."""

BURST_PAUSE: Final = 0.04
MANAGER_PAUSE: Final = (0.08, 0.22)
"""Seconds between two lines of the gateway manager: six or seven lines a second."""

ROUTER_PAUSE: Final = (0.2, 0.7)
"""Seconds between two lines of the order router."""

CONDITIONS_EVERY: Final = 0.5
"""Seconds between two reads of the file of conditions."""


class RotatedLog:
    """Log file with rotation: it is renamed to ``.1``, ``.1`` to ``.2``, up to ``KEEP``.

    Args:
        path: file to write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("ab", buffering=0)

    def write(self, text: str) -> None:
        """Append one or more lines."""
        self._file.write(f"{text}\n".encode())

    def rotate(self) -> None:
        """Start a new file, and delete the oldest rotated one."""
        for number in range(KEEP, 0, -1):
            rotated = self._rotated(number)
            if number == KEEP:
                rotated.unlink(missing_ok=True)
            elif rotated.exists():
                rotated.rename(self._rotated(number + 1))
        self._path.rename(self._rotated(1))
        self._file.close()
        self._file = self._path.open("ab", buffering=0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _rotated(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")


def plain(record: Record, now: float) -> str:
    """Format a record as plain text, in local time, as most loggers do."""
    local = datetime.fromtimestamp(now).astimezone()
    timestamp = f"{local:%Y-%m-%d %H:%M:%S}.{local.microsecond // 1000:03d}"
    return "\n".join(
        (f"{timestamp} {record.level:<5} [{record.gateway}] {record.message}", *record.continuation)
    )


def json_line(record: Record, now: float) -> str:
    """Format a record as a JSON object."""
    timestamp = datetime.fromtimestamp(now, UTC).isoformat(timespec="milliseconds")
    body = {
        "timestamp": timestamp.replace("+00:00", "Z"),
        "level": record.level.lower(),
        "service": "order_router",
        "message": record.message,
        "gateway": record.gateway,
        **record.fields,
    }
    return json.dumps(body, ensure_ascii=False)


class LogService:
    """Scheduler of both services' log lines, bursts and rotations.

    Args:
        logs: folder of the log files.
        conditions: file of the gateways' conditions.
        random: source of randomness.
    """

    def __init__(self, logs: Path, conditions: Path, random: Random) -> None:
        self._random = random
        self._conditions_path = conditions
        self._conditions: dict[str, Condition] = read_conditions(conditions)
        self._manager = GatewayManager(random)
        self._router = OrderRouter(random)
        self._manager_log = RotatedLog(logs / "gateway_manager.log")
        self._router_log = RotatedLog(logs / "order_router.log")
        self._burst: Iterator[Record] | None = None
        # Tasks, and when they are due, in seconds since the start. A task returns its next delay.
        self._schedule: list[tuple[Callable[[float], float], float]] = [
            (self._write_changes, 0.0),
            (self._write_manager, 0.0),
            (self._write_router, 0.0),
            (self._write_burst, FIRST_BURST),
            (lambda _: self._rotate(self._manager_log), random.uniform(*ROTATE_EVERY)),
            (lambda _: self._rotate(self._router_log), random.uniform(*ROTATE_EVERY)),
        ]

    def advance(self, since_start: float) -> float:
        """Run the tasks that are due; return when the next task is due, in seconds since the start."""
        self._schedule = [
            (task, at if at > since_start else since_start + task(time.time())) for task, at in self._schedule
        ]
        return min(at for _, at in self._schedule)

    def _write_changes(self, now: float) -> float:
        before, self._conditions = self._conditions, read_conditions(self._conditions_path)
        for record in self._manager.changes(before, self._conditions):
            self._manager_log.write(plain(record, now))
        return CONDITIONS_EVERY

    def _write_manager(self, now: float) -> float:
        self._manager_log.write(plain(self._manager.routine(self._conditions), now))
        return self._random.uniform(*MANAGER_PAUSE)

    def _write_router(self, now: float) -> float:
        self._router_log.write(json_line(self._router.routine(self._conditions), now))
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
    parser.add_argument("--logs", type=Path, required=True, help="folder of the log files")
    parser.add_argument(
        "--conditions", type=Path, required=True, help="JSON file to read the gateways' conditions from"
    )
    parser.add_argument("--seed", type=int, help="seed of the log lines; random without it")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(os.EX_OK))
    service = LogService(arguments.logs, arguments.conditions, Random(arguments.seed))  # noqa: S311
    started = time.monotonic()
    while True:
        next_at = service.advance(time.monotonic() - started)
        time.sleep(max(0.0, started + next_at - time.monotonic()))


if __name__ == "__main__":
    main()
