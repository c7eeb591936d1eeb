"""The bench runs: its children are found, and it says what it measured. What came out is not looked at."""

import json
import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE

QUICK = ("--quick", "--json", "--clients", "5", "--seconds", "0.5", "--only", "same", "--only", "start")


def test_a_short_run_measures_something() -> None:
    """This relay and its peers, with a load of their own for each."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench", *QUICK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["target"] for row in found["same"]} >= {"tickertape", "nats-server", "naive"}
    assert found["start"]
