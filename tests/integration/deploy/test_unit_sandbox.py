"""Programs under the system call filters of their units."""

import ctypes
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.deploy_options import DEPLOY
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.journal import journal, needs_journal
from tests.support.programs.system_calls import LIBRARY

UNIT = DEPLOY / "systemd" / "tickertape-shipper@.service"


def _has_library() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return shutil.which("systemd-analyze") is not None


pytestmark = pytest.mark.skipif(not _has_library(), reason="needs systemd-analyze and libseccomp")


def restricted(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command under the filter of the shipper's unit."""
    argv = [sys.executable, "-m", "tests.support.programs.system_calls", str(UNIT), *command]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_filter_is_set() -> None:
    """The kernel filters the calls of a program, and others than the allowed ones fail."""
    done = restricted("cat", "/proc/self/status")
    assert "\nSeccomp:\t2\n" in done.stdout, done.stderr
    done = restricted(sys.executable, "-c", "import os; os.chroot('/')")
    assert "PermissionError" in done.stderr


@needs_journal
def test_the_shipper_reads_the_journal(tmp_path: Path) -> None:
    """The shipper starts ``journalctl``, and both need no call that the unit forbids."""
    with journal(tmp_path / "a.journal") as entries:
        entries.add("disk full", PRIORITY="3", SYSLOG_IDENTIFIER="app")
    options = ("--journal", f"--journal-dir={tmp_path}", "--once", "--dry-run", "--json")
    done = restricted(sys.executable, "-m", "tickertape", "ship", *options)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["event"]["message"] for line in done.stdout.splitlines()] == ["disk full"]
