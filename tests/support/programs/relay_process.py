"""A real relay as a child process: started, queried, stopped and killed by a test.

Invariants:

1. ``start`` returns when the relay is ready, or at least listening; it raises with the relay's own output if
   it exits before that.
2. The ports stay the same after the first start.
3. Nothing is left running: ``close`` ends the process in whatever state it is, and so does the exit of the
   interpreter.
"""

import atexit
import contextlib
import io
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from unittest.mock import patch

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE as PATIENCE
from tests.support.programs import warm_start
from tests.support.programs.program_output import ProgramOutput
from tickertape.cli import main as cli
from tickertape.nats.errors import StreamsError

_LISTENING: Final = re.compile(r"relay: (https?://\S+)  metrics: (http://\S+)/metrics  NATS: (\S+)")
_running: set["Relay"] = set()


def command(*arguments: str) -> list[str]:
    """Return the command line of ``tickertape``."""
    return [sys.executable, "-m", "tickertape", *arguments]


def environment(**more: str) -> dict[str, str]:
    """Return the test's environment without Tickertape's settings, and with text logs."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("TICKERTAPE_")}
    return {**kept, "PYTHONPATH": str(ROOT), "TICKERTAPE_LOG_FORMAT": "text", **more}


def run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that exits by itself."""
    process = warm_start.start(arguments, environment(**env), ROOT)
    with ThreadPoolExecutor(2) as pool, process.stdout, process.stderr:
        logged = [pool.submit(stream.read) for stream in (process.stdout, process.stderr)]
        try:
            code = process.wait(PATIENCE)
        finally:
            process.kill()
        out, err = (one.result() for one in logged)
    return subprocess.CompletedProcess(arguments, code, out, err)


def expect_rejection(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Call a command whose options are rejected, within this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, environment(**env), clear=True),
        patch.object(cli, "_run", side_effect=AssertionError(f"{arguments} were accepted")),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        code = cli.main(list(arguments))
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def eventually(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Wait until a condition holds; a transient error of JetStream, as without a leader, means not yet.

    Raises:
        TimeoutError: it does not hold in time; the text names it.
    """
    deadline = time.monotonic() + timeout
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for: {what}")
        time.sleep(0.01)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except StreamsError as error:
        if not error.transient:
            raise
        return False


class MainPort:
    """Addresses that follow from the URL of a main port.

    Attributes:
        url: URL of the main port.
    """

    url: str

    @property
    def ws_url(self) -> str:
        """URL of the feed."""
        return f"ws{self.url.removeprefix('http')}/ws"

    @property
    def host_port(self) -> tuple[str, int]:
        """Host and port of the main port."""
        host, _, port = self.url.partition("://")[2].rpartition(":")
        return host, int(port)


class Relay(MainPort):
    """One ``tickertape serve``; also a context manager that starts and stops it.

    Args:
        nats_url: URL of NATS; None lets the relay start its own server.
        options: further command-line options.
        env: additional environment variables.

    Attributes:
        descriptors: descriptor limit of the next process, like ``ulimit -n``; None keeps the default.
        program: command to run instead of ``tickertape``, in a new interpreter.
    """

    def __init__(self, nats_url: str | None, *options: str, **env: str) -> None:
        self.options = [*(("--nats-url", nats_url) if nats_url else ()), "--drain", "1"]
        self.options += ["--drain-delay", "0", *options]
        self.env = env
        self.descriptors: int | None = None
        self.program: list[str] | None = None
        self.url = ""
        self.ops_url = ""
        self.nats_url = nats_url or ""
        self._process: subprocess.Popen[str] | warm_start.Process | None = None
        self._out: ProgramOutput | None = None
        self._err: ProgramOutput | None = None

    def __repr__(self) -> str:
        state = f"pid {self._process.pid}" if self._process else "not running"
        return f"<Relay {self.url or 'no port yet'} {state}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def connect(self, source: str = "127.0.0.1") -> socket.socket:
        """Open a connection to the main port from a source address, without TLS."""
        return socket.create_connection(self.host_port, timeout=PATIENCE, source_address=(source, 0))

    @property
    def pid(self) -> int:
        """Process id; RuntimeError if the relay is not running."""
        return self._expect_running().pid

    @property
    def lines(self) -> list[str]:
        """Lines of its standard output since its start."""
        return self._out.lines if self._out else []

    @property
    def log(self) -> list[str]:
        """Lines of its standard error, which is its log, since its start."""
        return self._err.lines if self._err else []

    @property
    def output(self) -> list[str]:
        """Lines of its standard output and of its log."""
        return [*self.lines, *self.log]

    @property
    def resident_bytes(self) -> int:
        """Resident memory of the process in bytes."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def start(self, *, ready: bool = True) -> None:
        """Start the relay.

        Args:
            ready: wait until it is ready; otherwise only until it listens.
        """
        ports = ["--port", self.url.rpartition(":")[2] or "0", "--ops-port"]
        ports.append(self.ops_url.rpartition(":")[2] or "0")
        self._process = self._launch(["serve", *ports, *self.options])
        _running.add(self)
        self._out, self._err = ProgramOutput(self._process.stdout), ProgramOutput(self._process.stderr)
        self._until(lambda: any(_LISTENING.match(line) for line in self.lines), "the relay listens")
        found = next(found for line in self.lines if (found := _LISTENING.match(line)))
        self.url, self.ops_url, self.nats_url = found[1], found[2], found[3]
        if ready:
            self.until_ready()

    def _launch(self, arguments: list[str]) -> "subprocess.Popen[str] | warm_start.Process":
        env = environment(**self.env)
        if self.program is None and self.descriptors is None:
            return warm_start.start(arguments, env, ROOT)
        line = [*(self.program or command()), *arguments]
        if self.descriptors is not None:
            line = ["sh", "-c", f'ulimit -n {self.descriptors}; exec "$@"', "sh", *line]
        return subprocess.Popen(
            line,
            cwd=ROOT,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A Ctrl-C is for the tests, which then stop the relay themselves.
            start_new_session=True,
        )

    def until_ready(self) -> None:
        """Wait until the relay reports ready."""
        self._until(lambda: "ready\n" in self.lines, "the relay is ready")

    def until_logged(self, text: str) -> None:
        """Wait for a line of the relay's log."""
        self._until(lambda: any(text in line for line in self.log), f"the relay says {text!r}")

    def end(self, how: signal.Signals) -> None:
        """Send a signal and wait for the exit, if the relay is running."""
        if self._process is not None:
            self._process.send_signal(how)
            self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self._expect_running().send_signal(number)

    def stop(self) -> int:
        """Stop the relay gracefully (SIGTERM), and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """Kill the relay (SIGKILL), and wait for its exit."""
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self) -> int:
        """Wait for the relay to exit, and return its exit code."""
        process = self._process
        if process is None:
            raise RuntimeError("the relay was never started")
        try:
            return process.wait(PATIENCE)
        finally:
            self.close()

    def close(self) -> None:
        """Stop the relay in whatever state it is; idempotent."""
        process, self._process = self._process, None
        _running.discard(self)
        if process is None:
            return
        if process.poll() is None:
            process.kill()
            process.wait()
        for output in (self._out, self._err):
            if output is not None:
                output.close()

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        process = self._process
        assert process is not None

        def met() -> bool:
            if condition():
                return True
            code = process.poll()
            if code is not None:
                if condition():
                    return True
                raise RuntimeError(f"the relay ended with {code} before {what}: {''.join(self.log)[-2000:]}")
            return False

        try:
            eventually(met, what)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; {''.join(self.log)[-2000:]}") from None

    def _expect_running(self) -> "subprocess.Popen[str] | warm_start.Process":
        if self._process is None or self._process.poll() is not None:
            raise RuntimeError(f"the relay does not run: {''.join(self.log)[-2000:]}")
        return self._process


@atexit.register
def _close_all() -> None:
    for relay in list(_running):
        with contextlib.suppress(OSError):
            relay.close()
