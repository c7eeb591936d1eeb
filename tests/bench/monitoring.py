"""Scenario ``monitor``: CPU, memory and timing of the gateway monitor with a thousand gateways.

They are probed every five seconds, each by one of several kinds of probes, from the start of the monitor on.
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
from typing import Final

from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.bench.load.children import BenchError, Child, module, running
from tests.bench.load.gateways import KINDS
from tests.bench.measures import targets
from tests.support.servers.client_authority import ClientAuthority
from tests.support.servers.nats_server import free_port

INTERVAL: Final = 5.0
_NAME: Final = "gateway.example"
_SETTLE_SECONDS: Final = 12.0
"""Seconds of slightly more than two rounds, after which every gateway has a status."""

_PATIENCE: Final = 30.0
_PROBES: Final = "tickertape_monitor_probe_lag_seconds_count"
_ON_TIME: Final = 'tickertape_monitor_probe_lag_seconds_bucket{le="0.25"}'

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Monitoring:
    """Cost of monitoring gateways.

    Attributes:
        gateways: number of gateways, as many of each kind.
        seconds: length of the window.
        cores: cores used by the monitor.
        start_cpu: CPU seconds from the start of the monitor to the window.
        rss: resident bytes of the monitor.
        probes: number of probes in the window.
        late: share of the probes, since the start, that began more than 250 ms late.
        burst_ratio: probes in the busiest half second relative to the average half second.
    """

    gateways: int
    seconds: float
    cores: float
    start_cpu: float
    rss: int
    probes: int
    late: float
    burst_ratio: float


@contextlib.contextmanager
def running_monitor(nats_port: int, config: str, port: int) -> Iterator[Child]:
    """Run a monitor.

    Args:
        nats_port: port of NATS.
        config: its file.
        port: port of its metrics.
    """
    with tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder:
        path = Path(folder, "gateways.yaml")
        path.write_text(config)
        argv = [
            sys.executable, "-m", "tickertape", "monitor", "--gateways", str(path), "--id", "bench",
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


def write_config(interval: float, unhealthy_after: int, probes: list[str]) -> str:
    """Return the file of a monitor, with one gateway for each probe."""
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
    progress(f"monitor: {gateways:,} gateways every {INTERVAL:g} s: {', '.join(KINDS)} ...")
    ports, port = {kind: free_port() for kind in KINDS}, free_port()
    with (
        tempfile.TemporaryDirectory(prefix="tickertape-bench-") as folder,
        targets.nats_server(jetstream=True) as (_, nats_port),
    ):
        authority = ClientAuthority(Path(folder))
        certificate = authority.issue(
            f"dns:{_NAME}", seconds=90 * 86_400, usage=ExtendedKeyUsageOID.SERVER_AUTH
        )
        probes = _probes(ports, authority.ca)
        config = write_config(INTERVAL, 3, [probes[number % len(probes)] for number in range(gateways)])
        with (
            _serving(certificate=str(certificate), **ports) as servers,
            running_monitor(nats_port, config, port) as process,
        ):
            time.sleep(_SETTLE_SECONDS)
            servers.send(count=True)
            servers.receive(_PATIENCE)
            before, start_cpu, began = _metrics(port), process.cpu, time.monotonic()
            time.sleep(seconds)
            after, cpu, elapsed = _metrics(port), process.cpu - start_cpu, time.monotonic() - began
            servers.send(count=True)
            slices: list[int] = servers.receive(_PATIENCE)["slices"]
            rss = process.rss
    probes_run = int(_value(after, _PROBES) - _value(before, _PROBES))
    result = Monitoring(
        gateways, elapsed, cpu / elapsed, start_cpu, rss, probes_run,
        1 - _value(after, _ON_TIME) / _value(after, _PROBES), max(slices) / (sum(slices) / len(slices)),
    )  # fmt: skip
    progress(
        f"monitor: {result.cores:.2f} cores, {result.rss / 1e6:.0f} MB, {result.late:.2%} more than 250 ms"
        f" late, busiest half second {result.burst_ratio:.2f} x the average"
    )
    return result


@contextlib.contextmanager
def _serving(**spec: object) -> Iterator[Child]:
    with module("the gateways", "gateways", **spec) as servers:
        servers.receive(_PATIENCE)
        yield servers


def _probes(ports: dict[str, int], ca: Path) -> list[str]:
    """Return a probe of each kind."""
    address = {kind: f"127.0.0.1:{port}" for kind, port in ports.items()}
    return [
        f"{{kind: tcp, address: '{address['tcp']}'}}",
        f"{{kind: http, url: 'http://{address['http']}/', json: {{status: UP}}}}",
        f"{{kind: websocket, url: 'ws://{address['websocket']}/'}}",
        f"{{kind: tls, address: '{address['tls']}', server_name: {_NAME}, ca: '{ca}'}}",
        f"{{kind: dns, address: '{address['dns']}', query: {_NAME}}}",
    ]


def _value(text: str, line: str) -> float:
    result = re.search(rf"^{re.escape(line)} (\S+)", text, re.MULTILINE)
    return float(result[1]) if result else 0.0
