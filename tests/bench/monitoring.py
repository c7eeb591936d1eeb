"""Scenario ``monitor``: CPU, memory and timing of the gateway monitor, and how fast it detects a failure.

The monitor probes a thousand gateways every five seconds. Then a gateway is killed several times: the
scenario measures the time from its end until the event reaches a WebSocket client, with an interval of one
second and two failures.
"""

import contextlib
import re
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from websockets.sync.client import connect

from tests.bench.load.children import BenchError, Child, module, running
from tests.bench.measures import targets
from tests.support.servers.nats_server import free_port

INTERVAL: Final = 5.0
KILLS: Final = 5
_SETTLE_SECONDS: Final = 12.0
"""Seconds of slightly more than two rounds, after which every gateway has a status."""

_PATIENCE: Final = 30.0
_PROBES: Final = "tickertape_monitor_probe_lag_seconds_count"
_ON_TIME: Final = 'tickertape_monitor_probe_lag_seconds_bucket{le="0.25"}'

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Cost of monitoring gateways, and time to detect failures.

    Attributes:
        gateways: number of gateways, half of them TCP and half HTTP.
        seconds: length of the window.
        cores: cores used by the monitor.
        rss: resident bytes of the monitor.
        probes: number of probes in the window.
        late: share of the probes that began more than 250 ms late.
        burst_ratio: probes in the busiest half second relative to the average half second.
        detections: seconds from each failure until a client received the event.
    """

    gateways: int
    seconds: float
    cores: float
    rss: int
    probes: int
    late: float
    burst_ratio: float
    detections: tuple[float, ...]


@contextlib.contextmanager
def _monitor(nats_port: int, config: str, port: int) -> Iterator[Child]:
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        path = Path(folder, "gateways.yaml")
        path.write_text(config)
        argv = [
            sys.executable, "-m", "tickertape", "monitor", "--config", str(path), "--id", "bench",
            "--nats-url", f"nats://127.0.0.1:{nats_port}", "--metrics-port", str(port),
        ]  # fmt: skip
        with running("the monitor", argv) as process:
            deadline = time.monotonic() + _PATIENCE
            while not _metrics(port):
                process.check()
                if time.monotonic() > deadline:
                    raise BenchError(f"the monitor was not ready within {_PATIENCE:.0f} s")
                time.sleep(0.1)
            yield process


def _metrics(port: int) -> str:
    address = f"http://127.0.0.1:{port}/metrics"
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as response:
        return str(response.read().decode())
    return ""


def _config(interval: float, unhealthy_after: int, probes: list[str]) -> str:
    defaults = f"interval: {interval}s, timeout: 2s, unhealthy_after: {unhealthy_after}, healthy_after: 2"
    lines = [f"defaults: {{{defaults}}}", "gateways:"]
    lines += [f"  - {{id: g{number}, type: bench, probes: [{probe}]}}" for number, probe in enumerate(probes)]
    return "\n".join(lines)


def monitor(gateways: int, seconds: float, progress: Progress) -> Monitoring:
    """Measure the monitor.

    Args:
        gateways: number of gateways.
        seconds: length of the window.
        progress: called with each line of progress.
    """
    progress(f"monitor: {gateways:,} gateways every {INTERVAL:g} s ...")
    tcp, http, port = free_port(), free_port(), free_port()
    kinds = (
        f"{{kind: tcp, address: '127.0.0.1:{tcp}'}}",
        f"{{kind: http, url: 'http://127.0.0.1:{http}/', json: {{status: UP}}}}",
    )
    config = _config(INTERVAL, 3, [kinds[number % 2] for number in range(gateways)])
    with (
        targets.nats_server(jetstream=True) as (_, nats_port),
        module("the gateways", "gateways", ports=[tcp, http]) as servers,
        _monitor(nats_port, config, port) as process,
    ):
        servers.receive(_PATIENCE)
        time.sleep(_SETTLE_SECONDS)
        servers.send(count=True)
        servers.receive(_PATIENCE)
        before, cpu, began = _metrics(port), process.cpu, time.monotonic()
        time.sleep(seconds)
        after, cpu, elapsed = _metrics(port), process.cpu - cpu, time.monotonic() - began
        servers.send(count=True)
        slices: list[int] = servers.receive(_PATIENCE)["slices"]
        probes, on_time = (_value(after, name) - _value(before, name) for name in (_PROBES, _ON_TIME))
        rss = process.rss
    detections = _measure_detection(progress)
    result = Monitoring(
        gateways, elapsed, cpu / elapsed, rss, int(probes), 1 - on_time / probes,
        max(slices) / (sum(slices) / len(slices)), detections,
    )  # fmt: skip
    progress(
        f"monitor: {result.cores:.2f} cores, {result.rss / 1e6:.0f} MB, {result.late:.2%} more than 250 ms"
        f" late, busiest half second {result.burst_ratio:.2f} x the average, failures detected"
        f" within {max(detections):.2f} s"
    )
    return result


def _value(text: str, line: str) -> float:
    result = re.search(rf"^{re.escape(line)} (\S+)", text, re.MULTILINE)
    return float(result[1]) if result else 0.0


def _measure_detection(progress: Progress) -> tuple[float, ...]:
    """Kill a gateway several times; return the seconds until a client of our relay received each event."""
    result = []
    tcp, port = free_port(), free_port()
    config = _config(1.0, 2, [f"{{kind: tcp, address: '127.0.0.1:{tcp}'}}"])
    with (
        targets.ours() as target,
        _monitor(target.nats_port, config, port),
        connect(f"ws://127.0.0.1:{target.port}/ws?subjects=gateway.%3E") as feed,
    ):
        for number in range(KILLS):
            with module("the gateway", "gateways", ports=[tcp]) as gateway:
                gateway.receive(_PATIENCE)
                _until(feed, "HEALTHY")
                time.sleep(0.17 * number)  # vary the phase between two probes
                gateway.stop()
                killed_at = time.monotonic()
            _until(feed, "UNHEALTHY")
            result.append(time.monotonic() - killed_at)
            progress(f"monitor: a killed gateway is reported to a client after {result[-1]:.2f} s")
    return tuple(result)


def _until(feed: Any, status: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        message = orjson.loads(feed.recv(timeout=_PATIENCE))
        for item in message.get("events", ()):
            if item["event"].get("current_status") == status:
                return
    raise BenchError(f"no event reported the gateway as {status} within {_PATIENCE:.0f} s")
