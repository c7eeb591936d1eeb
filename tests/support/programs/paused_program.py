"""``tickertape`` that pauses at a given step of its run until the test allows it to continue.

Run by a test as ``python -m`` with the number of the step, the descriptor of a control socket, and the
arguments of the program. A step is an audit event of the interpreter: an import, an opened file, a socket, a
child process. Steps therefore count what the program does, not the time that it takes.

Invariants:

1. Steps count from when the program has taken control of SIGINT, in the main thread only.
2. At the step, a byte is written to the socket, and the program continues when it reads one.
3. When the interpreter exits, the number of steps is written to the socket as a line.
"""

import atexit
import contextlib
import os
import runpy
import signal
import sys
import threading
from typing import Any

PAUSED = b"p"


def main() -> None:
    """Run the program."""
    step, control = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(control, False)
    sys.argv = ["tickertape", *sys.argv[3:]]
    main_thread, steps, busy = threading.get_ident(), 0, False

    def count(event: str, _: tuple[Any, ...]) -> None:
        nonlocal steps, busy
        if busy or threading.get_ident() != main_thread:
            return
        busy = True
        if steps or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            steps += 1
            if steps == step:
                os.write(control, PAUSED)
                os.read(control, 1)
        busy = False

    def report() -> None:
        with contextlib.suppress(OSError):
            os.write(control, f"{steps}\n".encode())

    atexit.register(report)
    sys.addaudithook(count)
    runpy.run_module("tickertape", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
