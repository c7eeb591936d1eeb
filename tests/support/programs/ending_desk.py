"""Runs of a program that is disturbed at one step: by a signal, a reader that goes away, or closed
descriptors.

Invariants:

1. A run is repeatable: its ``Moment`` has everything that was drawn, and failures print it.
2. Nothing is left running, also when a check fails.
"""

import contextlib
import os
import random
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.paused_program import PAUSED
from tests.support.programs.relay_process import environment, eventually

DISTURBANCES: Final = ("TERM", "INT twice", "HUP", "stdout", "stderr", "both", "closed")
"""Signals, readers that go away, and descriptors that are closed from the start."""

MARK: Final = "ENDING_DESK"
"""Environment variable by which the processes of a run are found."""

_SAMPLE: Final = 0.03
_IDLE_SAMPLES: Final = 4


@dataclass(frozen=True)
class Moment:
    """One disturbance of one run.

    Attributes:
        step: step at which it happens; a step that is never reached disturbs nothing.
        disturbance: one of ``DISTURBANCES``.
        closed: descriptors that are closed from the start.
        pause: seconds between two signals.
    """

    step: int
    disturbance: str
    closed: tuple[int, ...] = ()
    pause: float = 0.0


@dataclass
class Outcome:
    """Result of a run.

    Attributes:
        code: exit code, negative for a signal.
        out: standard output, as far as it was read.
        err: standard error, as far as it was read.
        steps: number of steps; 0 if it did not exit by itself.
        handling: what the program did with the signal of the disturbance when it arrived: ``default``,
            ``caught`` or ``ignored``; empty if there was none.
        told: what the program did with the SIGTERM that ended it after the disturbance, likewise.
        mark: text that stands for ``MARK`` in the arguments and the input of this run.
    """

    code: int = 0
    out: bytes = b""
    err: bytes = b""
    steps: int = 0
    handling: str = ""
    told: str = ""
    mark: str = ""


@dataclass
class Program:
    """Program under test.

    Attributes:
        arguments: arguments of ``tickertape``.
        daemon: whether it runs until it is told to end.
        hangs_up: whether SIGHUP ends it, too.
        stdin: bytes on standard input; None for /dev/null.
        stays_open: whether standard input stays open after them.
        code: exit code of a run without a disturbance.
        env: further environment variables.
    """

    arguments: Sequence[str]
    daemon: bool = False
    hangs_up: bool = True
    stdin: bytes | None = None
    stays_open: bool = False
    code: int = 0
    env: dict[str, str] = field(default_factory=dict)


def moments(seed: int, number: int, steps: int, first: int = 0) -> Iterator[Moment]:
    """Draw moments at steps spread over a run, with one kind of disturbance after the other."""
    chance = random.Random(seed)
    for index in range(first, first + number):
        disturbance = DISTURBANCES[index % len(DISTURBANCES)]
        closed = (
            tuple(n for n in range(3) if chance.random() < 0.5) or (1,) if disturbance == "closed" else ()
        )
        yield Moment(
            chance.randint(1, max(1, steps)), disturbance, closed, chance.choice([0.0, 0.0, 0.01, 0.1])
        )


def run_at(program: Program, moment: Moment) -> Outcome:
    """Run a program, disturb it, and return how it ended.

    A daemon is told to end (SIGTERM) once it waits for something.

    Raises:
        AssertionError: it does not end, or leaves a process.
    """
    run = _Run(program, moment)
    try:
        return run.until_end()
    finally:
        run.close()


def handling(pid: int, number: int) -> str:
    """Return what a process does with a signal: ``default``, ``caught`` or ``ignored``."""
    fields = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    for name, word in (("SigCgt", "caught"), ("SigIgn", "ignored")):
        if int(fields[name], 16) >> (number - 1) & 1:
            return word
    return "default"


def processes_of(mark: str) -> list[int]:
    """Return the processes whose environment or command line contains a mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            with contextlib.suppress(OSError):
                text = (folder / "environ").read_bytes() + (folder / "cmdline").read_bytes()
                # A zombie has neither.
                if mark.encode() in text:
                    found.append(int(folder.name))
    return found


class _Run:
    def __init__(self, program: Program, moment: Moment) -> None:
        self._program, self._moment = program, moment
        self.mark = f"run-{os.getpid()}-{random.SystemRandom().getrandbits(48):x}"
        self._outcome = Outcome(mark=self.mark)
        self._control, there = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        self._readers: dict[int, str] = {out: "out", err: "err"}
        with there:
            self._process = subprocess.Popen(
                [
                    sys.executable, "-m", "tests.support.programs.paused_program", str(moment.step),
                    str(there.fileno()), *(part.replace("MARK", self.mark) for part in program.arguments),
                ],
                cwd=ROOT,
                env={**environment(), MARK: self.mark, **program.env},
                stdin=subprocess.DEVNULL if program.stdin is None else subprocess.PIPE,
                stdout=out_end,
                stderr=err_end,
                pass_fds=[there.fileno()],
                start_new_session=True,
                preexec_fn=self._close_descriptors,
            )  # fmt: skip
        os.close(out_end)
        os.close(err_end)
        self._feed()

    def _close_descriptors(self) -> None:
        for number in self._moment.closed:
            os.close(number)

    def _feed(self) -> None:
        stdin = self._process.stdin
        if stdin is None:
            return
        with contextlib.suppress(BrokenPipeError):
            stdin.write((self._program.stdin or b"").replace(b"MARK", self.mark.encode()))
            stdin.flush()
        if not self._program.stays_open:
            with contextlib.suppress(BrokenPipeError):
                stdin.close()

    def until_end(self) -> Outcome:
        """Follow the run to its end."""
        deadline = time.monotonic() + PATIENCE
        idle, before = 0, -1
        while self._process.poll() is None:
            assert time.monotonic() < deadline, f"still runs: {self._stack()}"
            if self._read(_SAMPLE):
                self._disturb()
                with contextlib.suppress(OSError):  # the disturbance may have ended it
                    self._control.send(b"c")
                idle = 0
            now = self._cpu()
            idle = idle + 1 if now == before else 0
            before = now
            if idle >= _IDLE_SAMPLES and not self._outcome.told and self._needs_telling():
                self._outcome.told = self._signal(signal.SIGTERM)
                idle = 0
        while self._readers and self._read(1.0) is not None:
            pass
        self._outcome.code = self._process.returncode
        eventually(
            lambda: not processes_of(self.mark), f"no process is left, but {processes_of(self.mark)}", 30.0
        )
        return self._outcome

    def close(self) -> None:
        """Kill what is left."""
        for pid in [self._process.pid, *processes_of(self.mark)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        self._control.close()
        for number in self._readers:
            os.close(number)
        self._readers.clear()

    # The program.

    def _needs_telling(self) -> bool:
        return self._program.daemon or self._program.stays_open

    def _cpu(self) -> int:
        """Return the CPU time of a process that waits for something; -1 for one that runs."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return -1
        return int(fields[11]) + int(fields[12]) if fields[0] in "ST" else -random.getrandbits(30)

    def _signal(self, number: signal.Signals) -> str:
        try:
            done = handling(self._process.pid, number)
        except (OSError, KeyError):
            done = "ended"
        self._process.send_signal(number)
        return done

    def _disturb(self) -> None:
        kind = self._moment.disturbance
        if kind == "INT twice":
            self._outcome.handling = self._signal(signal.SIGINT)
            time.sleep(self._moment.pause)
            self._process.send_signal(signal.SIGINT)
        elif kind in ("TERM", "HUP"):
            self._outcome.handling = self._signal(signal.Signals[f"SIG{kind}"])
        elif kind != "closed":
            for number, name in list(self._readers.items()):
                if kind in (f"std{name}", "both"):
                    os.close(number)
                    del self._readers[number]

    def _read(self, seconds: float) -> bool | None:
        """Read output and control messages.

        Returns:
            True if the program has paused, None if nothing has come.
        """
        control = self._control.fileno()
        ready, _, _ = select.select([control, *self._readers], [], [], seconds)
        paused = False
        for source in ready:
            if source == control:
                try:
                    data = self._control.recv(100)
                except ConnectionResetError:  # it has exited while it paused
                    data = b""
                if PAUSED in data:
                    paused = True
                elif data:
                    self._outcome.steps = int(data)
                elif self._process.poll() is None:
                    time.sleep(seconds)  # it has closed the socket, and still ends
                continue
            data = os.read(source, 65536)
            if not data:
                os.close(source)
                del self._readers[source]
                continue
            name = self._readers[source]
            setattr(self._outcome, name, getattr(self._outcome, name) + data)
        return paused if ready else None

    def _stack(self) -> str:
        return f"{self._moment} {self._program.arguments} {self._outcome}"


def check_end(program: Program, moment: Moment, outcome: Outcome) -> None:
    """Check the exit code, and that standard error has no traceback.

    Raises:
        AssertionError: something is wrong; the text has the moment.
    """
    where = f"{moment} of {list(program.arguments)}: {outcome}"
    assert b"Traceback" not in outcome.err, where
    assert b"did not end within" not in outcome.err, where
    assert outcome.code in allowed_codes(program, moment, outcome), where


def allowed_codes(program: Program, moment: Moment, outcome: Outcome) -> set[int]:
    """Return the exit codes that a program may have after a disturbance."""
    finished = {program.code}
    number = {"TERM": 15, "INT twice": 2, "HUP": 1}.get(moment.disturbance)
    if number is not None and outcome.handling and (number != 1 or program.hangs_up):
        if outcome.handling == "default":
            return {-number}
        if outcome.handling == "caught":
            # A second signal ends what a daemon still does after the first one.
            early = not program.daemon or moment.disturbance == "INT twice"
            return finished | {128 + number} if early else finished
    if moment.disturbance in ("stdout", "stderr", "both", "closed") and not program.daemon:
        finished = finished | {1}
    if outcome.told == "default":
        return finished | {-15}
    if outcome.told == "caught" and not program.daemon:
        return finished | {128 + 15}
    return finished
