"""Child processes stop when told to, and with their parent."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tickertape.process import child

DEAF = """\
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('on', flush=True)
time.sleep(600)
"""
PARENT = """\
import asyncio, sys
from tickertape.process import child
async def main():
    process = await child.start(sys.executable, "-c", "import time; time.sleep(600)")
    print(process.pid, flush=True)
    await process.wait()
asyncio.run(main())
"""


def test_a_child_ends_when_it_is_asked_to() -> None:
    """A child stops on the signal without being killed; stopping twice is harmless."""

    async def check() -> None:
        process = await child.start(sys.executable, "-c", "import time; time.sleep(600)")
        assert await child.stop(process, 60.0)
        assert process.returncode == -signal.SIGTERM
        assert await child.stop(process, 0.0)

    asyncio.run(check())


def test_a_child_that_ignores_the_signal_is_killed(tmp_path: Path) -> None:
    """A child that ignores the signal is killed; its output is redirected as configured."""

    async def check() -> None:
        with (tmp_path / "output").open("wb") as output:
            process = await child.start(sys.executable, "-c", DEAF, output=output, environment={})
        while not (tmp_path / "output").read_bytes():
            await asyncio.sleep(0.01)
        assert not await child.stop(process, 0.1)
        assert process.returncode == -signal.SIGKILL

    asyncio.run(check())


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death")
def test_a_child_dies_with_its_parent() -> None:
    """A child dies with its parent, also when the parent is killed."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        watching = os.pidfd_open(pid)
        parent.kill()
        parent.wait()
    try:
        assert select.select([watching], [], [], 60.0)[0], "it still lives"
    finally:
        os.close(watching)
