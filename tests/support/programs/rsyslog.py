"""A real rsyslog that forwards the lines of a file, with a queue on disk."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
MODULES: Final = [
    *Path("/usr/lib").glob("*/rsyslog/omrelp.so"),
    *Path("/usr/lib64/rsyslog").glob("omrelp.so"),
]

needs_rsyslog = pytest.mark.skipif(
    not (Path(PROGRAM).exists() and MODULES), reason="rsyslog and rsyslog-relp are not installed"
)

_CONFIGURATION: Final = """
global(workDirectory="{folder}/work")
main_queue(queue.type="Direct")
module(load="imfile" mode="inotify")
module(load="omrelp")
input(type="imfile" file="{source}" tag="app:" facility="local3" severity="warning"
  persistStateInterval="1")
action({action} action.resumeInterval="1")
"""


class Rsyslog:
    """rsyslog that forwards what is appended to ``source``.

    Args:
        folder: folder of its state.
        action: parameters of its output module.
    """

    def __init__(self, folder: Path, action: str) -> None:
        self.source = folder / "forwarded.log"
        self._folder = folder
        (folder / "work").mkdir(exist_ok=True)
        self.source.touch()
        self._configuration = folder / "rsyslog.conf"
        self._configuration.write_text(
            _CONFIGURATION.format(folder=folder, source=self.source, action=action)
        )
        self.start()

    def start(self) -> None:
        """Start it, after its end as well."""
        (self._folder / "rsyslog.pid").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [PROGRAM, "-n", "-f", self._configuration, "-i", self._folder / "rsyslog.pid"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait()

    def append(self, lines: list[str]) -> None:
        """Append lines to its source."""
        with self.source.open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))


@contextmanager
def rsyslog(folder: Path, action: str) -> Iterator[Rsyslog]:
    """Run rsyslog."""
    running = Rsyslog(folder, action)
    try:
        yield running
    finally:
        running.stop()
