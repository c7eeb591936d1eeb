"""Comparison of the probes with those of blackbox_exporter at the same targets."""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.probes import CannotProbe

from tests.support.browser.browser_desk import missing
from tests.support.patience import PATIENCE
from tests.support.probing import probe_once
from tests.support.servers.nats_server import free_port
from tickertape.net.http_client import fetch

SHORT = 2.0
"""Seconds for targets that are expected to time out; the others have ample time."""

CONCURRENT = 8
"""Targets that are probed at the same time."""


@dataclass(frozen=True)
class Target:
    """Target of both.

    Attributes:
        probe: settings of our probe.
        module: settings of blackbox_exporter's.
        address: target of blackbox_exporter.
        good: whether the target works, which our verdict must be.
        difference: why blackbox_exporter's verdict is another one; empty if it is the same.
    """

    name: str
    probe: dict[str, Any]
    module: dict[str, Any]
    address: str
    good: bool
    slow: bool = False
    difference: str = ""


@contextlib.contextmanager
def blackbox_exporter(folder: Path, targets: list[Target]) -> Iterator[int]:
    """Run blackbox_exporter with a module for each target; yield its port."""
    program = shutil.which("prometheus-blackbox-exporter")
    if program is None:
        missing("needs blackbox_exporter; 'apt-get install prometheus-blackbox-exporter' brings it")
    modules = {
        str(number): {**target.module, "timeout": f"{SHORT if target.slow else PATIENCE:.0f}s"}
        for number, target in enumerate(targets)
    }
    (folder / "blackbox.yml").write_text(yaml.safe_dump({"modules": modules}))
    port = free_port()
    options = [f"--config.file={folder}/blackbox.yml", f"--web.listen-address=127.0.0.1:{port}"]
    with (folder / "blackbox.log").open("wb") as log:
        process = subprocess.Popen([program, *options], stderr=log)
    try:
        yield port
    finally:
        process.kill()
        process.wait()


async def their_verdict(port: int, number: int, target: Target) -> bool:
    """Return the verdict of blackbox_exporter."""
    query = urlencode({"module": str(number), "target": target.address})
    while True:
        try:
            response = await fetch(f"http://127.0.0.1:{port}/probe?{query}", 2 * PATIENCE, 1 << 20)
        except ConnectionError:
            await asyncio.sleep(0.05)  # it is starting
            continue
        assert response.status == 200, response.body
        return b"\nprobe_success 1\n" in response.body


async def our_verdict(target: Target) -> tuple[bool | None, str]:
    """Return our verdict and its reason; None if this machine cannot probe."""
    try:
        result = await probe_once(
            patience=PATIENCE if target.good or not target.slow else SHORT, **target.probe
        )
    except CannotProbe as error:
        return None, str(error)
    assert result is not None
    return result.outcome in (Outcome.OK, Outcome.DEGRADED), str(result.error)


async def find_faults(folder: Path, targets: list[Target]) -> list[str]:
    """Probe all targets with both; return wrong verdicts, and differences that the targets do not explain."""
    faults = []
    with blackbox_exporter(folder, targets) as port:
        slots = asyncio.Semaphore(CONCURRENT)

        async def compare(number: int, target: Target) -> None:
            async with slots:
                (ours, reason), theirs = await asyncio.gather(
                    our_verdict(target), their_verdict(port, number, target)
                )
            if ours is None and target.probe["kind"] == "icmp":
                return  # neither can send requests here
            if ours is not target.good:
                faults.append(f"{target.name}: ours is {ours}: {reason}")
            if not target.good and (not reason.isprintable() or len(reason) > 200):
                faults.append(f"{target.name}: reason {reason!r}")
            if theirs is (target.good if target.difference else not target.good):
                faults.append(f"{target.name}: blackbox_exporter says {theirs}")

        async with asyncio.timeout(3 * PATIENCE):
            await asyncio.gather(*(compare(*item) for item in enumerate(targets)))
    return faults
