"""What a test sees of a relay with several workers: its slots, its numbers, its processes."""

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
    """What ``/statusz`` says of each slot."""
    found: list[dict[str, Any]] = status(relay)["slots"]
    return found


def status(relay: Relay) -> dict[str, Any]:
    """All of ``/statusz``."""
    with urlopen(f"{relay.ops_url}/statusz") as page:
        found: dict[str, Any] = json.load(page)
    return found


def ready(relay: Relay) -> bool:
    """What ``/readyz`` says."""
    try:
        with urlopen(f"{relay.ops_url}/readyz") as page:
            return bool(page.status == 200)
    except HTTPError:
        return False


def numbers(relay: Relay, *, accumulating: bool = False) -> Numbers:
    """Every number of ``/metrics``, read as strictly as OpenMetrics is.

    Args:
        accumulating: only what must never go back.
    """
    asked = Request(f"{relay.ops_url}/metrics", headers={"Accept": "application/openmetrics-text"})
    with urlopen(asked) as page:
        text = page.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        if not accumulating or family.type in ("counter", "histogram") or family.name.endswith("_total")
        for sample in family.samples
    }


def number(relay: Relay, name: str, **labels: str) -> float:
    """One number; 0 while there is none."""
    return numbers(relay).get((f"tickertape_{name}", tuple(sorted(labels.items()))), 0.0)


def pids(relay: Relay) -> list[int]:
    """Processes of the workers, by slot."""
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
    """Arguments of a process, as everybody on the machine sees them."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def alive(pid: int) -> bool:
    """True while a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    """Direct child processes."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
