"""How the shipper stands: its health as an event, its metrics, and the table of ``--status``."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson
from nats.aio.client import Client
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from rich.console import Console
from rich.text import Text
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection, Status, SystemHealth
from tickertape.producers.shipper.files.file_stream import FileStream
from tickertape.producers.shipper.parsing.parser import ParserCounts
from tickertape.producers.shipper.shipper import Shipper

from tickertape.names import Names
from tickertape.nats import direct_get

SHOWN_FILES: Final = 100
"""Files in an event on the shipper's health, those with the most to ship first."""

LATE: Final = 60.0
"""Seconds behind after which a shipper is DEGRADED."""

_TIMEOUT: Final = 5.0


def health_event(shipper: Shipper, counts: ParserCounts, host: str) -> SystemHealth:
    """The shipper's health now."""
    now = time.time()
    files: list[dict[str, Any]] = [
        {"path": stream.path, "lag_bytes": stream.lag, "lag_seconds": round(_behind(stream, now), 1)}
        for stream in shipper.streams
    ]
    files.sort(key=lambda file: (-file["lag_bytes"], file["path"]))
    behind = max((file["lag_seconds"] for file in files), default=0.0)
    return SystemHealth(
        component="shipper",
        instance=host,
        status=Status.DEGRADED if behind >= LATE or shipper.rejected else Status.HEALTHY,
        checks={
            "files": len(files),
            "lag_bytes": sum(file["lag_bytes"] for file in files),
            "lag_seconds": behind,
            "shipped": sum(shipper.shipped.values()),
            "below_level": sum(stream.throttle.below_level for stream in shipper.streams),
            "suppressed": sum(stream.throttle.suppressed for stream in shipper.streams),
            "redacted": dict(counts.redacted),
            "invalid_lines": counts.invalid,
            "truncated_lines": counts.cut,
            "refused": shipper.rejected,
            "conflicts": shipper.conflicts,
            "by_file": files[:SHOWN_FILES],
        },
    )


def _behind(stream: FileStream, now: float) -> float:
    return max(0.0, now - stream.caught_up_at) if stream.lag and stream.caught_up_at else 0.0


class ShipCollector(Collector):
    """Reads a shipper when metrics are asked for. Labels are bounded: levels, kinds of secrets."""

    def __init__(self, shipper: Shipper, counts: ParserCounts) -> None:
        self._shipper = shipper
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """All metrics now."""
        shipper, counts, now = self._shipper, self._counts, time.time()
        streams = shipper.streams
        events = CounterMetricFamily(
            "tickertape_ship_events", "Events that JetStream has acknowledged.", labels=("level",)
        )
        for level, number in shipper.shipped.items():
            events.add_metric((level,), number)
        redacted = CounterMetricFamily(
            "tickertape_ship_redacted", "Secrets that did not leave this host.", labels=("kind",)
        )
        for kind, number in counts.redacted.items():
            redacted.add_metric((kind,), number)
        yield from (events, redacted)
        counters = {
            "lines": ("Lines that were read.", counts.lines),
            "bytes": ("Bytes of acknowledged events.", shipper.bytes),
            "batches": ("Batches that were acknowledged.", shipper.batches),
            "invalid_lines": ("Lines with bytes that are no text.", counts.invalid),
            "truncated_lines": ("Lines longer than the limit.", counts.cut),
            "below_level": (
                "Events below the least level.",
                sum(stream.throttle.below_level for stream in streams),
            ),
            "suppressed": (
                "Events that a rate held back.",
                sum(stream.throttle.suppressed for stream in streams),
            ),
            "refused": ("Events that NATS does not take.", shipper.rejected),
            "conflicts": ("Batches that another shipper was faster with.", shipper.conflicts),
        }
        for name, (text, number) in counters.items():
            yield CounterMetricFamily(f"tickertape_ship_{name}", text, value=number)
        gauges = {
            "files": ("Names of files that are followed.", float(len(streams))),
            "lag_bytes": ("Bytes that are not shipped yet.", float(sum(stream.lag for stream in streams))),
            "lag_seconds": (
                "Seconds since the file that is furthest behind had nothing left to ship.",
                max((_behind(stream, now) for stream in streams), default=0.0),
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"tickertape_ship_{name}", text, value=value)


async def print_status(client: Client, names: Names, host: str, console: Console) -> bool:
    """Print what the shipper of a host said last; False when it said nothing.

    Raises:
        NatsError: NATS does not answer.
    """
    subject = names.subject(SystemHealth.subject_of(component="shipper", instance=host))
    stream = names.stream("LATEST")
    async with asyncio.timeout(_TIMEOUT):
        found = await direct_get.get_last_message(client, stream, subject)
    if found is None or isinstance(decode(names.strip_prefix(subject), found.data), Rejection):
        return False
    event = SystemHealth.model_validate(orjson.loads(found.data))
    checks = event.checks if isinstance(event.checks, dict) else {}
    console.print(f"shipper of [bold]{host}[/] at {event.timestamp}: {event.status.value}", highlight=False)
    console.print(f"[dim]{'not shipped':>12}  {'behind':>10}  file[/]", highlight=False)
    for file in checks.get("by_file", ()):
        behind = f"{file['lag_seconds']:.1f} s"
        line = f"{_bytes(file['lag_bytes']):>12}  {behind:>10}  {file['path']}"
        console.print(Text(line), soft_wrap=True)
    words = [f"{checks.get('shipped', 0):,} events shipped"]
    for key, text in (("suppressed", "held back"), ("refused", "refused"), ("truncated_lines", "cut")):
        if checks.get(key):
            words.append(f"{checks[key]:,} {text}")
    console.print(", ".join(words), highlight=False)
    return True


def _bytes(number: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"
