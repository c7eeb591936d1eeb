"""``python -m tests.bench`` runs, finds its child modules, and reports results; figures are not checked."""

import json
import subprocess
import sys

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE

QUICK = ("--quick", "--json", "--clients", "5", "--seconds", "0.5", "--only", "same", "--only", "start")


def test_a_short_run_measures_every_target() -> None:
    """A short run measures this relay and its peers, each under its own load."""
    completed = subprocess.run(
        [sys.executable, "-m", "tests.bench", *QUICK],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    results = json.loads(completed.stdout)
    assert {row["target"] for row in results["same"]} >= {"tickertape", "nats-server", "naive"}
    assert results["start"]
