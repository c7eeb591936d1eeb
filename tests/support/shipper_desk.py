"""A shipper without NATS: a real folder, virtual time, and a list of shipped events."""

import os
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import orjson
from tickertape.producers.shipper.files.discovery import FileDiscovery
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.roots import Roots
from tickertape.producers.shipper.files.rotation import source_of
from tickertape.producers.shipper.parsing.parser import Parser, ParserCounts, ParseSettings
from tickertape.producers.shipper.sinks.sink import StoredCheckpoint, decode
from tickertape.producers.shipper.throttle import Throttle, ThrottleSettings
from tickertape.producers.shipper.timing import Timing

T0 = 1_800_000_000.0
PLAIN = ParseSettings(format="plain", multiline="off")


class Desk:
    """A folder of logs, their writer, and a shipper that can be killed at any moment.

    Args:
        folder: folder of the logs.
        patterns: names and globs in it.
        parsing: settings of the parser.
        throttle: settings of the throttle.
        from_end: skip the existing content.
        roots: further folders whose files may be read.
    """

    def __init__(
        self,
        folder: Path,
        *patterns: str,
        parsing: ParseSettings = PLAIN,
        throttle: ThrottleSettings | None = None,
        from_end: bool = False,
        roots: Sequence[Path] = (),
    ) -> None:
        self.folder = folder
        self.now = T0
        self.steps = 0.0
        self.real_time = False
        self.shipped: dict[str, list[str]] = {}
        self.bodies: list[dict[str, object]] = []
        self.kept: dict[str, bytes] = {}
        self.complaints: list[str] = []
        self.counts = ParserCounts()
        self._patterns = [str(folder / pattern) for pattern in patterns or ("*.log",)]
        self._parsing = parsing
        self._throttle = throttle or ThrottleSettings()
        self._from_end = from_end
        self._others = [str(path) for path in roots]
        self._sequences: Counter[str] = Counter()
        self.discovery = self._start()

    def _start(self) -> FileDiscovery:
        stored = {
            path: StoredCheckpoint(decode(body), self._sequences[path]) for path, body in self.kept.items()
        }
        self.roots = Roots(self._patterns, self._others, self.complaints.append)
        return FileDiscovery(
            self._patterns,
            stored,
            self._make,
            roots=self.roots,
            from_end=self._from_end,
            warn=self.complaints.append,
        )

    def _make(self, path: str, stored: StoredCheckpoint | None) -> FileStream:
        source = source_of(path)
        throttle = Throttle(self._throttle, path, source)
        parser = lambda: Parser(self._parsing, source, self.counts)  # noqa: E731
        timing = Timing(clock=self.monotonic)
        return FileStream(path, stored, parser, throttle, "run", roots=self.roots, timing=timing)

    def monotonic(self) -> float:
        """Return the time of a clock that is never set."""
        return time.monotonic() if self.real_time else self.now - self.steps

    # Shipper.

    def ship(
        self, seconds: float = 0.0, *, scan: bool = True, batches: int = 100, finish: bool = False
    ) -> None:
        """Advance the clock, scan for files, and ship what is new."""
        self.now += seconds
        self.roots.uncompressor.wait()
        if scan:
            self.discovery.scan(self.now)
        for stream in list(self.discovery.streams.values()):
            for _ in range(batches):
                batch = stream.next_batch(self.now, finish=finish)
                if batch is None:
                    break
                for item in batch.events:
                    body = orjson.loads(item.payload)
                    self.bodies.append(body)
                    self.shipped.setdefault(body["source"], []).append(body["message"])
                self.kept[stream.path] = batch.checkpoint.encode("host")
                self._sequences[stream.path] += 1
                stream.mark_shipped(batch, self._sequences[stream.path])

    def settle(self) -> None:
        """Ship until nothing is pending."""
        for _ in range(20):
            self.ship(6.0)

    def kill(self) -> None:
        """Kill the shipper while a batch of every file is in flight, and restart it."""
        for stream in self.discovery.streams.values():
            stream.next_batch(self.now)
        self.discovery.close()
        self.discovery = self._start()

    def set_clock(self, step: float) -> None:
        """Set the system clock of the host, ahead or back."""
        self.now += step
        self.steps += step
        self.discovery.shift_clock(step)

    def close(self) -> None:
        self.discovery.close()

    # Writer.

    def path(self, name: str) -> Path:
        return self.folder / name

    def write(self, name: str, text: str) -> None:
        with self.path(name).open("a", newline="") as file:
            file.write(text)
        self._touch(name)

    def rename(self, name: str, to: str) -> None:
        self.path(name).rename(self.path(to))
        self._touch()

    def delete(self, name: str) -> None:
        self.path(name).unlink()
        self._touch()

    def copy_and_truncate(self, name: str, to: str) -> None:
        shutil.copyfile(self.path(name), self.path(to))
        self._touch(to)
        self.truncate(name)

    def truncate(self, name: str) -> None:
        os.truncate(self.path(name), 0)
        self._touch(name)

    def _touch(self, *names: str) -> None:
        self.now += 0.05
        for path in (self.folder, *map(self.path, names)):
            os.utime(path, (self.now, self.now))
