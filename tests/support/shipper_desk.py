"""A shipper without NATS: a real folder, literal times, and a list for what is shipped."""

import os
import shutil
from collections import Counter
from pathlib import Path

import orjson
from tickertape.producers.shipper.files.discovery import Tail
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.files.rotation import source_of
from tickertape.producers.shipper.parsing.parser import Counts, Parser, ParseSettings
from tickertape.producers.shipper.sinks.sink import Known, decode
from tickertape.producers.shipper.throttle import Shape, Throttle

T0 = 1_800_000_000.0
PLAIN = ParseSettings(format="plain", multiline="off")


class Desk:
    """A folder of logs, their writer, and a shipper that can be killed at any moment.

    Args:
        folder: of the logs.
        patterns: names and globs in it.
        parsing: how lines are read.
        shape: which events go out.
    """

    def __init__(
        self,
        folder: Path,
        *patterns: str,
        parsing: ParseSettings = PLAIN,
        shape: Shape | None = None,
        from_end: bool = False,
    ) -> None:
        self.folder = folder
        self.now = T0
        self.shipped: dict[str, list[str]] = {}
        self.bodies: list[dict[str, object]] = []
        self.kept: dict[str, bytes] = {}
        self.complaints: list[str] = []
        self.counts = Counts()
        self._patterns = [str(folder / pattern) for pattern in patterns or ("*.log",)]
        self._parsing = parsing
        self._shape = shape or Shape()
        self._from_end = from_end
        self._sequences: Counter[str] = Counter()
        self.tail = self._start()

    def _start(self) -> Tail:
        known = {path: Known(decode(body), self._sequences[path]) for path, body in self.kept.items()}
        return Tail(
            self._patterns, known, self._make, from_end=self._from_end, complain=self.complaints.append
        )

    def _make(self, path: str, known: Known | None) -> FileStream:
        source = source_of(path)
        shaper = Throttle(self._shape, path, source)
        return FileStream(path, known, lambda: Parser(self._parsing, source, self.counts), shaper, "run")

    # The shipper.

    def ship(
        self, seconds: float = 0.0, *, look: bool = True, batches: int = 100, finish: bool = False
    ) -> None:
        """Let time pass, look for files, and ship what there is."""
        self.now += seconds
        if look:
            self.tail.look(self.now)
        for lineage in list(self.tail.lineages.values()):
            for _ in range(batches):
                batch = lineage.next_batch(self.now, finish=finish)
                if batch is None:
                    break
                for item in batch.items:
                    body = orjson.loads(item.payload)
                    self.bodies.append(body)
                    self.shipped.setdefault(body["source"], []).append(body["message"])
                self.kept[lineage.path] = batch.checkpoint.encode("host")
                self._sequences[lineage.path] += 1
                lineage.shipped(batch, self._sequences[lineage.path])

    def settle(self) -> None:
        """Ship until nothing waits for anything any more."""
        for _ in range(20):
            self.ship(6.0)

    def kill(self) -> None:
        """Kill the shipper while a batch of every file is under way, and start it again."""
        for lineage in self.tail.lineages.values():
            lineage.next_batch(self.now)
        self.tail.close()
        self.tail = self._start()

    def close(self) -> None:
        self.tail.close()

    # The writer.

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
