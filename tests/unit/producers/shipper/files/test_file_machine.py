"""Random writes, rotations and kills against a model.

No line is lost or repeated, and lines of a file stay in order.
"""

import os
import tempfile
from itertools import count
from pathlib import Path

from hypothesis import settings, strategies
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.support.shipper_desk import Desk

FILES = ("a", "b")
FULL = os.environ.get("CHAOS") == "full"
EXAMPLES = 3_000 if FULL else 150


class Rotation(RuleBasedStateMachine):
    """State machine of a writer that rotates files in any order, and a shipper killed at any time."""

    @initialize(glob=strategies.sampled_from(["*.log", "*"]), copies=strategies.booleans())
    def initialize_files(self, glob: str, copies: bool) -> None:
        self.copies = {"a": copies, "b": not copies}
        self.temporary = tempfile.TemporaryDirectory()
        self.desk = Desk(Path(self.temporary.name), glob)
        self.glob = glob
        self.numbers = count(1)
        self.seconds_waited = 0.0
        self.clock_set = False
        self.model: dict[str, list[str]] = {name: [] for name in FILES}
        self.partial = dict.fromkeys(FILES, "")
        # A file that the shipper has not seen yet has no rotated predecessors.
        for name in FILES:
            self.model[name] = [self._line(name, 0)]
            self.desk.write(f"{name}.log", f"{self.model[name][0]}\n")
        self.desk.ship()

    def _line(self, name: str, size: int) -> str:
        return f"line {next(self.numbers)} of {name}{'x' * size}"

    @rule(
        name=strategies.sampled_from(FILES),
        lines=strategies.integers(1, 30),
        size=strategies.sampled_from([0, 50, 3000]),
    )
    def write(self, name: str, lines: int, size: int) -> None:
        texts = [self._line(name, size) for _ in range(lines)]
        texts[0] = self.partial[name] + texts[0] if self.partial[name] else texts[0]
        complete = "".join(f"{text}\n" for text in texts)
        self.desk.write(f"{name}.log", complete.removeprefix(self.partial[name]))
        self.model[name] += texts
        self.partial[name] = ""

    @rule(name=strategies.sampled_from(FILES))
    def write_partial(self, name: str) -> None:
        text = f"partial {next(self.numbers)}, "
        self.desk.write(f"{name}.log", text)
        self.partial[name] += text

    def _complete_partial(self, name: str) -> None:
        """Record a partial line as a line, because it will not be completed."""
        if self.partial[name]:
            self.model[name].append(self.partial[name].strip())
            self.partial[name] = ""

    def _shift(self, name: str) -> None:
        for number in (4, 3, 2, 1):
            if self.desk.path(f"{name}.log.{number}").exists():
                self.desk.rename(f"{name}.log.{number}", f"{name}.log.{number + 1}")

    def _can_rotate(self, name: str) -> bool:
        return self.desk.path(f"{name}.log").exists() and not self.desk.path(f"{name}.log.5").exists()

    @rule(name=strategies.sampled_from(FILES))
    def rotate(self, name: str) -> None:
        if not self._can_rotate(name) or not self.desk.path(f"{name}.log").stat().st_size:
            return
        self._complete_partial(name)
        self._shift(name)
        if self.copies[name]:
            self.desk.copy_and_truncate(f"{name}.log", f"{name}.log.1")
        else:
            self.desk.rename(f"{name}.log", f"{name}.log.1")

    @rule(name=strategies.sampled_from(FILES))
    def truncate_shipped(self, name: str) -> None:
        """Truncate a file whose lines are all shipped; those that are not would be lost."""
        if self.desk.path(f"{name}.log").exists():
            self.wait()
            self.desk.truncate(f"{name}.log")

    @rule(name=strategies.sampled_from(FILES))
    def delete_shipped(self, name: str) -> None:
        if self.desk.path(f"{name}.log").exists():
            self.wait()
            self.desk.delete(f"{name}.log")

    @rule(
        seconds=strategies.sampled_from([0.0, 0.3, 1.2]),
        scan=strategies.booleans(),
        batches=strategies.integers(1, 3),
    )
    def ship(self, seconds: float, scan: bool, batches: int) -> None:
        self.desk.ship(seconds, scan=scan, batches=batches)
        self.seconds_waited += seconds + 0.3
        if self.seconds_waited > 4.0:  # partial lines are about to be shipped
            self.wait()

    @rule()
    def wait(self) -> None:
        """Ship until no line waits to be completed or continued."""
        self.desk.settle()
        self.seconds_waited = 0.0
        for name in FILES:
            self._complete_partial(name)

    @rule()
    def kill(self) -> None:
        # A checkpoint has times of the old clock, so a restart after a step may take a file for another.
        if not self.clock_set:
            self.desk.kill()

    @rule(step=strategies.sampled_from([3600.0, -3600.0]))
    def set_clock(self, step: float) -> None:
        """Set the system clock: no wait becomes shorter or longer, and no file is taken for another."""
        # Two rotations that no scan sees, one on each side of a step, cannot be put in order.
        self.desk.ship()
        self.desk.set_clock(step)
        self.desk.ship()
        self.clock_set = True

    def _in_order(self, name: str) -> bool:
        # If a glob matches several copies made between two scans, they cannot be told from new files in time.
        return not (self.copies[name] and self.glob == "*")

    @invariant()
    def shipped_is_a_prefix_of_written(self) -> None:
        for name in FILES if hasattr(self, "model") else ():
            shipped = self.desk.shipped.get(name, [])
            written = self.model[name]
            if self._in_order(name):
                assert shipped == written[: len(shipped)], f"{name}: {self.desk.complaints}"
            else:
                assert len(set(shipped)) == len(shipped), "a line was shipped twice"
                assert set(shipped) <= set(written)

    def teardown(self) -> None:
        if hasattr(self, "desk"):
            self.wait()
            for name in FILES:
                shipped, written = self.desk.shipped.get(name, []), self.model[name]
                if not self._in_order(name):
                    shipped, written = sorted(shipped), sorted(written)
                assert shipped == written, self.desk.complaints
            self.desk.close()
            self.temporary.cleanup()


Rotation.TestCase.settings = settings(
    max_examples=EXAMPLES, stateful_step_count=40, derandomize=not FULL, deadline=None
)
TestRotation = Rotation.TestCase
