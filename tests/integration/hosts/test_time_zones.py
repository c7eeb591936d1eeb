"""A host without a time zone database."""

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.programs.relay_process import environment

GATEWAYS = """
exchanges:
  SHFE: {zone: Asia/Shanghai, spans: ["09:00-11:30"]}
gateways:
  - {id: x, type: ctp, session: SHFE, probes: [{kind: tcp, address: "127.0.0.1:1"}]}
"""

# PYTHONTZPATH hides the database of the system; None is a module that cannot be imported.
WITHOUT_PACKAGE = """
import sys
sys.modules["tzdata"] = None
from tickertape.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def test_the_missing_package_is_named(tmp_path: Path) -> None:
    """Sessions and time zones need the package only where the system has no database, and name it."""
    (tmp_path / "gateways.yaml").write_text(GATEWAYS)

    def run(*line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *line], cwd=ROOT, env=environment(PYTHONTZPATH=""), check=False,
            capture_output=True, text=True,
        )  # fmt: skip

    check = ("check", str(tmp_path / "gateways.yaml"))
    assert run("-m", "tickertape", *check).returncode == 0
    ship = ("ship", "x.log", "--zone", "Asia/Shanghai")
    for arguments, code in ((check, 1), (ship, 2)):
        done = run("-c", WITHOUT_PACKAGE, *arguments)
        assert done.returncode == code
        text = " ".join((done.stdout + done.stderr).split())
        assert "'Asia/Shanghai' cannot be looked up: this machine has no time zone database" in text
        assert "install the package tzdata" in text
