"""The scenario of the gateway monitor: a thousand gateways every five seconds, and one that dies.

monitor   CPU, memory, lateness and spread of the looks; then how long it takes from a gateway's death to the
          event on a WebSocket client, at an interval of one second and two failures.
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

from tests.bench.load.children import BenchError, Child, free_port, module, running
from tests.bench.measures import targets

INTERVAL: Final = 5.0
DEATHS: Final = 5
_SETTLE_SECONDS: Final = 12.0
"""Two rounds and a bit: by then every gateway has its first verdict."""

_PATIENCE: Final = 30.0
_LOOKS: Final = "tickertape_monitor_probe_lag_seconds_count"
_PROMPT: Final = 'tickertape_monitor_probe_lag_seconds_bucket{le="0.25"}'

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Monitoring:
    """What watching gateways cost, and how soon a death was seen.

    Attributes:
        gateways: how many, half of them TCP and half HTTP.
        seconds: length of the window.
        cores: CPU of the monitor.
        rss: resident bytes.
        looks: in the window.
        late: share of them that began more than 250 ms late.
        uneven: looks in the busiest half second, by those in an average one.
        deaths: seconds from each death to the event on a client.
    """

    gateways: int
    seconds: float
    cores: float
    rss: int
    looks: int
    late: float
    uneven: float
    deaths: tuple[float, ...]


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
                    raise BenchError("the monitor is not ready")
                time.sleep(0.1)
            yield process


def _metrics(port: int) -> str:
    address = f"http://127.0.0.1:{port}/metrics"
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())
    return ""


def _file(interval: float, unhealthy_after: int, probes: list[str]) -> str:
    defaults = f"interval: {interval}s, timeout: 2s, unhealthy_after: {unhealthy_after}, healthy_after: 2"
    lines = [f"defaults: {{{defaults}}}", "gateways:"]
    lines += [f"  - {{id: g{number}, type: bench, probes: [{probe}]}}" for number, probe in enumerate(probes)]
    return "\n".join(lines)


def monitor(gateways: int, seconds: float, say: Say) -> Monitoring:
    """Measure it.

    Args:
        gateways: how many.
        seconds: length of the window.
        say: gets lines of progress.
    """
    say(f"monitor: {gateways:,} gateways every {INTERVAL:g} s ...")
    tcp, http, port = free_port(), free_port(), free_port()
    kinds = (
        f"{{kind: tcp, address: '127.0.0.1:{tcp}'}}",
        f"{{kind: http, url: 'http://127.0.0.1:{http}/', json: {{status: UP}}}}",
    )
    config = _file(INTERVAL, 3, [kinds[number % 2] for number in range(gateways)])
    with (
        targets.nats_server(jetstream=True) as (_, nats_port),
        module("the gateways", "gateways", ports=[tcp, http]) as servers,
        _monitor(nats_port, config, port) as process,
    ):
        servers.hear(_PATIENCE)
        time.sleep(_SETTLE_SECONDS)
        servers.say(count=True)
        servers.hear(_PATIENCE)
        before, cpu, began = _metrics(port), process.cpu, time.monotonic()
        time.sleep(seconds)
        after, cpu, took = _metrics(port), process.cpu - cpu, time.monotonic() - began
        servers.say(count=True)
        slices: list[int] = servers.hear(_PATIENCE)["slices"]
        looks, prompt = (_value(after, name) - _value(before, name) for name in (_LOOKS, _PROMPT))
        rss = process.rss
    deaths = _deaths(say)
    found = Monitoring(
        gateways, took, cpu / took, rss, int(looks), 1 - prompt / looks,
        max(slices) / (sum(slices) / len(slices)), deaths,
    )  # fmt: skip
    say(
        f"monitor: {found.cores:.2f} cores, {found.rss / 1e6:.0f} MB, {found.late:.2%} more than 250 ms"
        f" late, busiest half second {found.uneven:.2f} x, deaths seen within {max(deaths):.2f} s"
    )
    return found


def _value(text: str, line: str) -> float:
    found = re.search(rf"^{re.escape(line)} (\S+)", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def _deaths(say: Say) -> tuple[float, ...]:
    """Seconds from a gateway's death to the event on a client of our relay, several times."""
    found = []
    tcp, port = free_port(), free_port()
    config = _file(1.0, 2, [f"{{kind: tcp, address: '127.0.0.1:{tcp}'}}"])
    with (
        targets.ours() as target,
        _monitor(target.nats_port, config, port),
        connect(f"ws://127.0.0.1:{target.port}/ws?subjects=gateway.%3E") as feed,
    ):
        for number in range(DEATHS):
            with module("the gateway", "gateways", ports=[tcp]) as gateway:
                gateway.hear(_PATIENCE)
                _until(feed, "HEALTHY")
                time.sleep(0.17 * number)  # at another place between two looks each time
                gateway.stop()
                died = time.monotonic()
            _until(feed, "UNHEALTHY")
            found.append(time.monotonic() - died)
            say(f"monitor: a gateway's death is on a client after {found[-1]:.2f} s")
    return tuple(found)


def _until(feed: Any, status: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        message = orjson.loads(feed.recv(timeout=_PATIENCE))
        for item in message.get("events", ()):
            if item["event"].get("current_status") == status:
                return
    raise BenchError(f"the gateway was never told to be {status}")
