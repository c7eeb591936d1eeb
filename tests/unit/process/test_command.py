"""Commands of the operator, which are real processes here."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import PATIENCE
from tickertape.process.command import INHERITED, MAX_OUTPUT_BYTES, run_command
from tickertape.process.event_loop import Loop
from tickertape.process.tasks import cancel_and_wait

LOOPS: list[type[asyncio.AbstractEventLoop]] = [Loop, asyncio.SelectorEventLoop]


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
    code, output = runner.run(run_command(["env"], {"OWN": "a b"}, PATIENCE))
    found = dict(line.split("=", 1) for line in output.decode().splitlines())
    assert code == 0
    assert set(found) <= {*INHERITED, "OWN"}
    assert (found["OWN"], found["TZ"], found["PATH"]) == ("a b", "UTC", os.environ["PATH"])


def test_a_command_without_a_path_is_found(runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PATH, a command uses the system's default."""
    monkeypatch.delenv("PATH")
    assert runner.run(run_command(["env"], {}, PATIENCE))[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_command_inherits_no_descriptors(runner: asyncio.Runner, tmp_path: Path) -> None:
    """Standard input is empty, and even inheritable descriptors of this process are closed."""
    with (tmp_path / "secret").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        script = "cat; for fd in /proc/$$/fd/*; do readlink $fd; done; true"
        code, output = runner.run(run_command(["sh", "-c", script], {}, PATIENCE))
    found = output.decode().split()
    assert code == 0
    assert found[0] == "/dev/null"
    assert all(name == "/dev/null" or name.startswith("pipe:") for name in found)


def test_a_process_that_keeps_the_output_open_is_not_waited_for(runner: asyncio.Runner) -> None:
    """A command ends when it exits, although a daemon that it started holds its output open."""
    script = "setsid sleep 600 & echo $!"
    code, output = runner.run(run_command(["sh", "-c", script], {}, PATIENCE))
    os.kill(int(output), signal.SIGKILL)
    assert code == 0


def test_a_daemon_that_writes_without_end_is_not_waited_for(runner: asyncio.Runner) -> None:
    """Output that arrives without end after the exit of the command is not read, and fills no memory."""
    script = "echo $$; exec 3>&1; setsid sh -c 'echo $$ >&3; exec yes' & sleep 0.2; exit 1"
    code, output = runner.run(run_command(["bash", "-c", script], {}, PATIENCE))
    assert code == 1
    assert len(output) <= MAX_OUTPUT_BYTES


@pytest.mark.parametrize("length", [0, 1, 65_536, 65_537, 3_000_000])
def test_the_end_of_the_output_is_kept(runner: asyncio.Runner, length: int) -> None:
    """The end of the output is complete, however much a command writes before it exits."""
    script = f"head -c {length} /dev/zero | tr '\\0' x; echo; echo last >&2"
    code, output = runner.run(run_command(["sh", "-c", script], {}, PATIENCE))
    assert code == 0
    assert output.endswith(b"x\nlast\n" if length else b"\nlast\n")
    assert len(output) == min(length + 6, MAX_OUTPUT_BYTES)


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


def test_a_command_that_is_cancelled_while_it_starts_is_killed(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command that runs before its start has been reported does not outlive a cancellation."""
    pid = tmp_path / "pid"
    start = asyncio.create_subprocess_exec

    async def start_slowly(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        while not pid.exists():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)

    async def scenario() -> None:
        script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
        await cancel_command(script, pid)
        with contextlib.suppress(ProcessLookupError):
            assert not _runs(int(pid.read_text()))

    runner.run(scenario())


def test_a_command_that_is_cancelled_twice_while_it_starts_is_killed(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second cancellation, as ``cancel_and_wait`` sends it, leaves no command running."""
    pid = tmp_path / "pid"
    start = asyncio.create_subprocess_exec
    reported = asyncio.Event()

    async def start_slowly(*command: str, **options: Any) -> asyncio.subprocess.Process:
        process = await start(*command, **options)
        await reported.wait()
        return process

    monkeypatch.setattr(asyncio, "create_subprocess_exec", start_slowly)

    async def scenario() -> None:
        script = f"echo $$ > {pid}.new; mv {pid}.new {pid}; exec sleep 600"
        task = asyncio.create_task(run_command(["sh", "-c", script], {}, PATIENCE))
        async with asyncio.timeout(PATIENCE):
            while not pid.exists():
                await asyncio.sleep(0.01)
        await cancel_and_wait(task, interval=0.01)
        reported.set()
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ProcessLookupError):
                while _runs(int(pid.read_text())):
                    await asyncio.sleep(0.01)

    runner.run(scenario())


def _runs(pid: int) -> bool:
    os.kill(pid, 0)
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
