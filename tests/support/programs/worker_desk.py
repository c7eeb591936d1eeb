"""Helpers for tests of a relay with several workers: its slots, metrics and processes."""

import json
import os
import signal
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support.programs.relay_process import Relay, eventually

Numbers = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def slots(relay: Relay) -> list[dict[str, Any]]:
    """Return the state of each slot in ``/statusz``."""
    found: list[dict[str, Any]] = status(relay)["slots"]
    return found


def status(relay: Relay) -> dict[str, Any]:
    """Return all of ``/statusz``."""
    with urlopen(f"{relay.ops_url}/statusz") as page:
        found: dict[str, Any] = json.load(page)
    return found


def ready(relay: Relay) -> bool:
    """Return the response of ``/readyz``."""
    try:
        with urlopen(f"{relay.ops_url}/readyz") as page:
            return bool(page.status == 200)
    except HTTPError:
        return False


def numbers(relay: Relay, *, accumulating: bool = False) -> Numbers:
    """Return every number in ``/metrics``, parsed as strictly as OpenMetrics requires.

    Args:
        accumulating: only numbers that must never decrease.
    """
    requested = Request(f"{relay.ops_url}/metrics", headers={"Accept": "application/openmetrics-text"})
    with urlopen(requested) as page:
        text = page.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        if not accumulating or family.type in ("counter", "histogram") or family.name.endswith("_total")
        for sample in family.samples
    }


def number(relay: Relay, name: str, **labels: str) -> float:
    """Return one number; 0 if it does not exist."""
    return numbers(relay).get((f"tickertape_{name}", tuple(sorted(labels.items()))), 0.0)


def pids(relay: Relay) -> list[int]:
    """Return the process ids of the workers, by slot."""
    return [slot["pid"] for slot in slots(relay)]


def kill_worker(relay: Relay, slot: int) -> None:
    """Kill a worker (SIGKILL), and wait until its successor serves."""
    before = slots(relay)[slot]
    os.kill(before["pid"], signal.SIGKILL)

    def back() -> bool:
        now = slots(relay)[slot]
        return bool(now["state"] == "ready" and now["restarts"] > before["restarts"])

    eventually(back, f"worker {slot} is back")


def command_line(pid: int) -> str:
    """Return the arguments of a process, as every user of the machine can see them."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def alive(pid: int) -> bool:
    """Return whether a process is running; a zombie is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """Return the direct child processes."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
