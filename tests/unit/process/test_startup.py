"""Preparation of a process: descriptors and signals, in new interpreters."""

import os
import signal
import subprocess
import sys
from itertools import product

import pytest

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE

SUBSETS = [
    tuple(number for number, closed in enumerate(bits) if closed) for bits in product((False, True), repeat=3)
]

REPORT = """\
import os, sys
from tickertape.process.startup import prepare
prepare(sys.argv[1:])
prepare(["serve"])  # without effect
control = {control}
with os.fdopen(control, "w") as file:
    print([os.readlink(f"/proc/self/fd/{{n}}") for n in range(3)], file=file)
    print(os.open("/dev/zero", os.O_RDONLY) > 2, sys.stdin.read(), file=file)
    print("to output", flush=True)
    print("to error", file=sys.stderr)
"""

SIGNALS = """\
import signal, sys
from tickertape.process.startup import prepare
prepare(sys.argv[1:])
numbers = signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGQUIT
print(*(signal.getsignal(number).name.removeprefix("SIG_") for number in numbers))
"""


@pytest.mark.parametrize("command", ["publish", "serve"])
@pytest.mark.parametrize("closed", SUBSETS)
def test_closed_descriptors_become_the_null_device(closed: tuple[int, ...], command: str) -> None:
    """No other descriptor gets the number of a standard stream, and every stream can be used."""
    control, there = os.pipe()

    def close() -> None:
        for number in closed:
            os.close(number)

    done = subprocess.run(
        [sys.executable, "-c", REPORT.format(control=there), command],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        pass_fds=[there],
        preexec_fn=close,
        timeout=PATIENCE,
        check=True,
    )
    os.close(there)
    with os.fdopen(control) as file:
        descriptors, rest = file.read().splitlines()
    assert rest == "True "
    assert [name == "/dev/null" for name in eval(descriptors)] == [
        number == 0 or number in closed for number in range(3)
    ]
    assert done.stdout == (b"" if 1 in closed else b"to output\n")
    assert done.stderr == (b"" if 2 in closed else b"to error\n")


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("serve", "DFL DFL IGN IGN IGN DFL"),
        ("monitor", "DFL DFL IGN IGN IGN DFL"),
        ("ship", "DFL DFL IGN IGN IGN DFL"),
        ("publish", "DFL DFL DFL DFL IGN DFL"),
        ("", "DFL DFL DFL DFL IGN DFL"),
    ],
)
def test_signals(command: str, expected: str) -> None:
    """Only daemons ignore SIGHUP and SIGUSR1, and Ctrl-C prints no traceback anywhere."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, command],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == expected


def test_an_ignored_interrupt_stays_ignored() -> None:
    """A shell starts background jobs with SIGINT ignored, which must not end them."""
    done = subprocess.run(
        [sys.executable, "-c", SIGNALS, "publish"],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN) and None,
    )  # fmt: skip
    assert done.stdout.startswith("IGN ")
