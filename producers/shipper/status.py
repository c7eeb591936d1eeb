"""Status of the shipper: health events, metrics, and the table that ``--status`` prints."""

import asyncio
import heapq
import time
from collections.abc import Iterator
from typing import Any, Final

import orjson
from nats.aio.client import Client
from nats.errors import NoRespondersError
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, ValidationError
from rich.text import Text
from tickertape.contracts.decode import decode
from tickertape.contracts.events import Rejection, Status, SystemHealth
from tickertape.producers.shipper.parsing.parser import ParserCounts
from tickertape.producers.shipper.shipper import Shipper
from tickertape.producers.shipper.sources.event_stream import EventStream

from tickertape.errors import OperatorError
from tickertape.names import Names
from tickertape.nats import direct_get
from tickertape.process.terminal import Terminal
from tickertape.text import escape_surrogates, printable
from tickertape.validation import describe_first_error

SHOWN_FILES: Final = 100
"""Maximum number of files in a health event; those with the most lag come first."""

DEGRADED_LAG: Final = 60.0
"""Seconds of lag from which a shipper is DEGRADED."""

_TIMEOUT: Final = 5.0
"""Seconds to wait for the last health event."""


def health_event(shipper: Shipper, counts: ParserCounts, host: str) -> SystemHealth:
    """Build the current health event of a shipper."""
    # Not the system clock, which may have been set since a stream had caught up.
    now = time.monotonic()
    streams = shipper.streams
    lost_files, lost_bytes = shipper.losses
    lags = [(stream.lag, stream) for stream in streams]
    lag = round(max((_lag_seconds(stream, lag, now) for lag, stream in lags), default=0.0), 1)
    # Only these are formatted: there can be many thousands.
    shown = heapq.nsmallest(SHOWN_FILES, lags, key=lambda item: (-item[0], item[1].path))
    files: list[dict[str, Any]] = [
        {
            "path": escape_surrogates(stream.path),
            "encoding": stream.encoding,
            "lag_bytes": lag_bytes,
            "lag_seconds": round(_lag_seconds(stream, lag_bytes, now), 1),
        }
        for lag_bytes, stream in shown
    ]
    return SystemHealth(
        component="shipper",
        instance=host,
        status=Status.DEGRADED if lag >= DEGRADED_LAG or shipper.rejected or lost_files else Status.HEALTHY,
        checks={
            "files": len(streams),
            "lag_bytes": sum(lag_bytes for lag_bytes, _ in lags),
            "lag_seconds": lag,
            "shipped": sum(shipper.shipped.values()),
            "below_level": counts.below_level + sum(stream.throttle.below_level for stream in streams),
            "suppressed": counts.suppressed + sum(stream.throttle.suppressed for stream in streams),
            "redacted": dict(counts.redacted),
            "invalid_lines": counts.invalid,
            "truncated_lines": counts.truncated,
            "rejected": shipper.rejected,
            "conflicts": shipper.conflicts,
            "forbidden_files": shipper.forbidden,
            "lost_files": lost_files,
            "lost_bytes": lost_bytes,
            "by_file": files,
        },
    )


def _lag_seconds(stream: EventStream, lag: int, now: float) -> float:
    # A stream that has never caught up has no time from which its lag could be measured.
    return max(0.0, now - stream.caught_up_at) if lag and stream.caught_up_at else 0.0


class ShipCollector(Collector):
    """Metrics of a shipper, read when they are scraped. Labels are bounded: levels and kinds of secrets."""

    def __init__(self, shipper: Shipper, counts: ParserCounts) -> None:
        self._shipper = shipper
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        """Yield the current value of each metric.

        Another thread calls this, so mappings are copied before they are iterated; ``dict`` runs no Python
        code, during which the event loop could change them.
        """
        shipper, counts, now = self._shipper, self._counts, time.monotonic()
        streams = shipper.streams
        lags = [(stream.lag, stream) for stream in streams]
        events = CounterMetricFamily(
            "tickertape_ship_events", "Events that JetStream has acknowledged.", labels=("level",)
        )
        for level, count in dict(shipper.shipped).items():
            events.add_metric((level,), count)
        redacted = CounterMetricFamily(
            "tickertape_ship_redacted", "Secrets that were redacted.", labels=("kind",)
        )
        for kind, count in dict(counts.redacted).items():
            redacted.add_metric((kind,), count)
        yield from (events, redacted)
        counters = {
            "lines": ("Lines that were read.", counts.lines),
            "bytes": ("Bytes of acknowledged events.", shipper.bytes),
            "batches": ("Batches that were acknowledged.", shipper.batches),
            "invalid_lines": ("Lines with bytes that are not text and were replaced.", counts.invalid),
            "truncated_lines": ("Lines that were truncated at the length limit.", counts.truncated),
            "below_level": (
                "Events below the minimum level.",
                counts.below_level + sum(stream.throttle.below_level for stream in streams),
            ),
            "suppressed": (
                "Events that a rate limit suppressed.",
                counts.suppressed + sum(stream.throttle.suppressed for stream in streams),
            ),
            "rejected": ("Events that NATS does not accept.", shipper.rejected),
            "conflicts": ("Batches that another shipper committed first.", shipper.conflicts),
            "lost_files": ("Files with lines that were removed before they were read.", shipper.losses[0]),
            "lost_bytes": ("Bytes that are known to be removed before they were read.", shipper.losses[1]),
        }
        for name, (text, count) in counters.items():
            yield CounterMetricFamily(f"tickertape_ship_{name}", text, value=count)
        gauges = {
            "files": ("File streams that are tailed.", float(len(streams))),
            "forbidden_files": (
                "Files that are not read: links out of the roots, and what is not a regular file.",
                float(shipper.forbidden),
            ),
            "lag_bytes": ("Bytes that are not shipped yet.", float(sum(lag for lag, _ in lags))),
            "lag_seconds": (
                "Seconds since the most delayed file stream was last fully shipped.",
                max((_lag_seconds(stream, lag, now) for lag, stream in lags), default=0.0),
            ),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"tickertape_ship_{name}", text, value=value)


class _FileChecks(BaseModel):
    """Lag of one file, as in ``health_event``."""

    model_config = ConfigDict(strict=True)

    path: str
    encoding: str = ""
    lag_bytes: NonNegativeInt
    lag_seconds: NonNegativeFloat


class _Checks(BaseModel):
    """Checks in a health event, as far as ``ship --status`` shows them."""

    model_config = ConfigDict(strict=True)

    by_file: list[_FileChecks] = []
    shipped: NonNegativeInt = 0
    suppressed: NonNegativeInt = 0
    rejected: NonNegativeInt = 0
    truncated_lines: NonNegativeInt = 0
    invalid_lines: NonNegativeInt = 0
    forbidden_files: NonNegativeInt = 0
    lost_files: NonNegativeInt = 0
    lost_bytes: NonNegativeInt = 0


async def print_status(client: Client, names: Names, host: str, console: Terminal) -> bool:
    """Print the last health event of a host's shipper; return False if there is none.

    Raises:
        NatsError: NATS does not respond.
        OperatorError: the event is not one of a shipper, since any client may publish on its subject.
    """
    subject = names.subject(SystemHealth.subject_of(component="shipper", instance=host))
    async with asyncio.timeout(_TIMEOUT):
        try:
            message = await direct_get.get_last_message(client, names.stream("HEALTH"), subject)
        # Until ``streams apply`` has created HEALTH, its states are in LATEST.
        except NoRespondersError:
            message = await direct_get.get_last_message(client, names.stream("LATEST"), subject)
    if message is None:
        return False
    print_health(host, names.strip_prefix(subject), message.data, console)
    return True


def print_health(host: str, subject: str, payload: bytes, console: Terminal) -> None:
    """Print a health event of a shipper.

    Args:
        host: host of the shipper.
        subject: subject of the event, without the deployment's prefix.
        payload: event, from any client that may publish on the subject.
        console: terminal to print to.

    Raises:
        OperatorError: the event is not one of a shipper.
    """
    event, checks = _read_health(subject, payload)
    console.print(
        Text.assemble(
            "shipper of ", (printable(host), "bold"), f" at {event.timestamp}: {event.status.value}"
        )
    )
    console.print(Text(f"{'not shipped':>12}  {'lag':>10}  {'encoding':<9}  file", "dim"))
    for file in checks.by_file:
        lag = f"{file.lag_seconds:.1f} s"
        line = f"{_format_bytes(file.lag_bytes):>12}  {lag:>10}  {file.encoding:<9}  {file.path}"
        console.print(printable(line), soft_wrap=True)
    parts = [f"{checks.shipped:,} events shipped"]
    for number, text in (
        (checks.suppressed, "suppressed"),
        (checks.rejected, "rejected"),
        (checks.truncated_lines, "lines truncated"),
        (checks.invalid_lines, "lines with bytes that are not text"),
        (checks.forbidden_files, "files not read; the shipper's log has the reason"),
        (checks.lost_files, f"files with lost lines ({_format_bytes(checks.lost_bytes)} or more lost)"),
    ):
        if number:
            parts.append(f"{number:,} {text}")
    console.print(", ".join(parts))


def _read_health(subject: str, payload: bytes) -> tuple[SystemHealth, _Checks]:
    """Return a shipper's health event, and the checks in it.

    Raises:
        OperatorError: the event is not one of a shipper.
    """
    decoded = decode(subject, payload)
    problem = str(decoded) if isinstance(decoded, Rejection) else None
    try:
        if problem is None:
            event = SystemHealth.model_validate(orjson.loads(payload))
            return event, _Checks.model_validate(event.checks)
    except ValidationError as error:
        problem = describe_first_error(error)
    raise OperatorError(
        f"the last event on {subject} is not one of a shipper: {problem}",
        "check which programs may publish on this subject",
    )


def _format_bytes(size: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
