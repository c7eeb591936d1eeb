"""The relay's own log, redirected to a file, is rotated by logrotate and shipped by the shipper."""

import json
import shutil
import signal
import subprocess
from pathlib import Path
from urllib.request import urlopen

from tests.support.browser.browser_desk import missing
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, command, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer


def lines_of(folder: Path) -> int:
    """Return the number of lines in the log and its rotated files."""
    return sum(len(path.read_bytes().splitlines()) for path in folder.glob("relay.log*"))


def test_no_line_is_lost_or_repeated_when_the_log_is_rotated(nats_server: NatsServer, tmp_path: Path) -> None:
    """The relay keeps writing to the file that ``copytruncate`` empties, and shipping logs nothing itself."""
    logrotate = shutil.which("logrotate", path="/usr/sbin:/usr/bin:/sbin")
    if logrotate is None:
        missing("needs logrotate; 'apt-get install logrotate' brings it")
    logs = tmp_path / "logs"
    logs.mkdir()
    log, config = logs / "relay.log", tmp_path / "logrotate.conf"
    config.write_text(f'"{log}" {{\n rotate 9\n copytruncate\n}}\n')
    relay = Relay(nats_server.url)
    relay.program = ["sh", "-c", f'exec "$@" 2>>"{log}"', "sh", *command()]
    ship = ("ship", str(log), "--once", "--source", "relay", "--nats-url", nats_server.url)
    with relay:
        for _ in range(3):
            relay.signal(signal.SIGHUP)
            # Empty after each rotation, and from the second one on it starts with this line.
            eventually(lambda: b"reload" in log.read_bytes(), "the reload is logged")
            written = lines_of(logs)
            done = run_command(*ship, "--state-dir", str(tmp_path / "state"))
            assert done.returncode == 0, done.stderr
            assert lines_of(logs) == written
            subprocess.run([logrotate, "-s", str(tmp_path / "status"), "-f", str(config)], check=True)
            assert log.stat().st_size == 0
        assert len(list(logs.iterdir())) == 4
        with urlopen(f"{relay.url}/events?since=1h&subjects=log.>&limit=1000", timeout=PATIENCE) as page:
            events = json.load(page)["events"]
        assert len(events) == lines_of(logs)
        assert relay.stop() == 0
