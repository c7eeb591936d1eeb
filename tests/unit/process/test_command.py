"""Commands of the operator, which are real processes here."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tickertape.process.command import INHERITED, MAX_DAEMON_OUTPUTS, MAX_OUTPUT_BYTES, run_command
from tickertape.process.event_loop import Loop

LOOPS: list[type[asyncio.AbstractEventLoop]] = [Loop, asyncio.SelectorEventLoop]

LIST_DESCRIPTORS = """
import os, sys
sys.stdin.read()
for number in range(1000):
    try:
        print(number, os.readlink(f"/proc/self/fd/{number}"))
    except FileNotFoundError:
        pass
"""


@pytest.fixture(params=LOOPS, ids=lambda loop: loop.__module__.partition(".")[0])
def runner(request: pytest.FixtureRequest) -> Iterator[asyncio.Runner]:
    """Run the test with each event loop that programs use."""
    with asyncio.Runner(loop_factory=request.param) as runner:
        yield runner


def test_a_command_inherits_no_settings(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command receives a few harmless variables and its own ones, whatever else this process has."""
    for name in ("TICKERTAPE_NATS_PASSWORD", "AWS_SECRET_ACCESS_KEY", "FIX_PASSWORD", "LD_PRELOAD_X", "TZX"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("TZ", "UTC")
    finished = runner.run(run_command(["env"], {"OWN": "a b"}, PATIENCE))
    found = dict(line.split("=", 1) for line in finished.output.decode().splitlines())
    assert finished.code == 0
    assert set(found) <= {*INHERITED, "OWN"}
    assert (found["OWN"], found["TZ"], found["PATH"]) == ("a b", "UTC", os.environ["PATH"])


def test_a_command_without_a_path_is_found(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PATH, a command uses the system's default."""
    monkeypatch.delenv("PATH")
    assert runner.run(run_command(["env"], {}, PATIENCE)).code == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_command_inherits_no_descriptors(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Standard input is empty, and even inheritable descriptors of this process are closed."""
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        finished = runner.run(run_command([sys.executable, "-ISc", LIST_DESCRIPTORS], {}, PATIENCE))
    assert (finished.code, finished.errors) == (0, b"")
    assert [line.partition(":")[0] for line in finished.output.decode().splitlines()] == [
        "0 /dev/null",
        "1 pipe",
        "2 pipe",
    ]


@contextlib.contextmanager
def daemon(pid: int) -> Iterator[None]:
    """Kill a daemon at the end, which fails if it has ended itself."""
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(("code", "start"), [(0, "nohup "), (1, "nohup "), (3, "setsid "), (0, "")])
def test_a_daemon_survives_and_can_write(
    runner: asyncio.Runner, tmp_path: Path, code: int, start: str
) -> None:
    """A command ends when it exits; a daemon that holds its output continues, and its writes succeed."""
    ready, done = tmp_path / "ready", tmp_path / "done"
    # More than a pipe holds.
    work = f"while [ ! -e {ready} ]; do sleep 0.01; done; for i in 1 2 3; do head -c 50000 /dev/zero; done"
    script = f"{start}sh -c '{work} && touch {done}; exec sleep 600' & echo $!; exit {code}"

    async def scenario() -> None:
        finished = await run_command(["sh", "-c", script], {}, PATIENCE)
        with daemon(int(finished.output)):
            assert finished.code == code
            ready.touch()
            async with asyncio.timeout(PATIENCE):
                while not done.exists():
                    await asyncio.sleep(0.01)

    runner.run(scenario())


def test_the_outputs_of_many_daemons_are_closed(runner: asyncio.Runner) -> None:
    """Daemons that commands leave behind take no more than a fixed number of descriptors."""
    script = "sleep 600 & echo $!"

    async def scenario() -> None:
        before = len(os.listdir("/dev/fd"))
        with contextlib.ExitStack() as daemons:
            for _ in range(MAX_DAEMON_OUTPUTS):
                finished = await run_command(["sh", "-c", script], {}, PATIENCE)
                daemons.enter_context(daemon(int(finished.output)))
            # Its own daemons hold all of them now, and the event loop may have opened some descriptors.
            full = len(os.listdir("/dev/fd"))
            finished = await run_command(["sh", "-c", script], {}, PATIENCE)
            daemons.enter_context(daemon(int(finished.output)))
            assert len(os.listdir("/dev/fd")) == full <= before + MAX_DAEMON_OUTPUTS + 8
        async with asyncio.timeout(PATIENCE):
            while len(os.listdir("/dev/fd")) > full - MAX_DAEMON_OUTPUTS:
                await asyncio.sleep(0.01)

    runner.run(scenario())


def test_a_daemon_that_writes_without_end_is_not_waited_for(runner: asyncio.Runner) -> None:
    """Output that arrives without end after the exit of the command is not read, and fills no memory."""
    script = "setsid yes & echo $! >&2; sleep 0.2; exit 1"
    finished = runner.run(run_command(["bash", "-c", script], {}, PATIENCE))
    with daemon(int(finished.errors)):
        assert finished.code == 1
        assert len(finished.output) <= MAX_OUTPUT_BYTES


def test_a_command_that_closes_its_output_is_waited_for(runner: asyncio.Runner) -> None:
    """The end of the output is not the end of a command."""
    script = "echo first; exec >&- 2>&-; sleep 0.2; exit 7"
    finished = runner.run(run_command(["sh", "-c", script], {}, PATIENCE))
    assert (finished.code, finished.output, finished.errors) == (7, b"first\n", b"")


def test_a_command_that_times_out_is_killed_with_its_group(runner: asyncio.Runner, tmp_path: Path) -> None:
    """A command that ignores SIGTERM is killed, and so is what it has started."""
    pid = tmp_path / "pid"
    script = f"trap '' TERM; sleep 600 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"

    async def scenario() -> None:
        seconds = 0.5
        while not pid.exists():  # otherwise it was killed before it had started the child
            with pytest.raises(TimeoutError):
                await run_command(["sh", "-c", script], {}, seconds)
            seconds *= 2
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ProcessLookupError):
                while _runs(int(pid.read_text())):
                    await asyncio.sleep(0.01)

    runner.run(scenario())


@pytest.mark.parametrize("length", [0, 1, 65_536, 65_537, 3_000_000])
def test_the_beginning_and_the_end_of_the_output_are_kept(runner: asyncio.Runner, length: int) -> None:
    """Both ends of the output are complete, however much a command writes before it exits."""
    script = f"echo first; head -c {length} /dev/zero | tr '\\0' x; echo last; echo error >&2"
    finished = runner.run(run_command(["sh", "-c", script], {}, PATIENCE))
    assert (finished.code, finished.errors) == (0, b"error\n")
    assert finished.output.startswith(b"first\n")
    assert finished.output.endswith(b"x" * min(length, 100) + b"last\n")
    assert len(finished.output) == min(length + 11, MAX_OUTPUT_BYTES)


async def cancel_command(script: str, started: Path) -> None:
    """Run a script, and cancel it when it has created a file."""
    task = asyncio.create_task(run_command(["sh", "-c", script], {}, PATIENCE))
    async with asyncio.timeout(PATIENCE):
        while not started.exists():
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_cancelled_command_is_killed(runner: asyncio.Runner, tmp_path: Path) -> None:
    """A command that is cancelled is killed with its child processes before the cancellation continues."""
    pid = tmp_path / "pid"

    async def scenario() -> None:
        script = f"trap '' TERM; sleep 600 & echo $! > {pid}.new; mv {pid}.new {pid}; wait"
        await cancel_command(script, pid)
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ProcessLookupError):
                while _runs(int(pid.read_text())):
                    await asyncio.sleep(0.01)

    runner.run(scenario())


def test_exit_codes_without_notice_from_the_system(
    runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system does not report the exit of a process, it is polled."""
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    assert runner.run(run_command(["sh", "-c", "sleep 0.1; exit 7"], {}, PATIENCE)).code == 7


def test_exit_codes_although_they_were_ignored(runner: asyncio.Runner) -> None:
    """A process that ignores SIGCHLD would receive no exit codes; a parent may have left it like that."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert runner.run(run_command(["sh", "-c", "exit 7"], {}, PATIENCE)).code == 7
    finally:
        signal.signal(signal.SIGCHLD, before)


def _runs(pid: int) -> bool:
    os.kill(pid, 0)
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
