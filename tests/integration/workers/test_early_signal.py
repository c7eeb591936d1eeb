"""A signal while a supervisor waits for its NATS server."""

import signal
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, environment, eventually
from tests.support.programs.worker_desk import alive

NEVER_READY = """\
#!/bin/sh
echo $$ > {folder}/pid.new
mv {folder}/pid.new {folder}/pid
exec sleep 600
"""

# The relay first looks for nats-server beside its Python.
RELAY = """\
import runpy, sys
sys.executable = {python!r}
runpy.run_module("tickertape", run_name="__main__")
"""


def test_a_signal_during_the_start(tmp_path: Path) -> None:
    """SIGHUP changes nothing; SIGTERM exits with 0 and stops the embedded NATS server."""
    server = tmp_path / "nats-server"
    server.write_text(NEVER_READY.format(folder=tmp_path))
    server.chmod(0o755)
    relay = subprocess.Popen(
        [
            sys.executable, "-c", RELAY.format(python=str(tmp_path / "python")), "serve", "--workers", "2",
            "--port", "0", "--ops-port", "0", "--nats-port", "0", "--data-dir", str(tmp_path / "data"),
        ],
        cwd=ROOT,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        eventually((tmp_path / "pid").exists, "NATS is being started")
        relay.send_signal(signal.SIGHUP)
        relay.send_signal(signal.SIGTERM)
        out, err = relay.communicate(timeout=PATIENCE)
    finally:
        relay.kill()
    assert relay.returncode == 0, err
    assert "Traceback" not in err
    assert out == ""
    assert not alive(int((tmp_path / "pid").read_text()))
