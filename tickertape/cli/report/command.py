"""``tickertape report``: availability and incidents of gateways, from the history of a relay."""

import asyncio
import csv
import io
import ssl
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import orjson

from tickertape.cli.report.settings import ReportSettings, http_url
from tickertape.cli.tail.diagnosis import explain
from tickertape.cli.tail.relay_client import tls_context
from tickertape.cli.tail.token import HINT, TokenSource
from tickertape.errors import OperatorError
from tickertape.net.http_client import fetch
from tickertape.net.outgoing import describe_failure
from tickertape.process.console import print_json, print_line
from tickertape.text import count

TIMEOUT: Final = 30.0
"""Seconds for each response."""

ATTEMPTS: Final = 5
"""Number of requests to a relay that is not ready to answer, such as one that still loads the history."""

RETRY_DELAY: Final = 1.0
"""Seconds between them."""

MAX_BYTES: Final = 16 * 1024 * 1024
"""Maximum bytes of a response: of 1 000 gateways or incidents."""

COLUMNS: Final = (
    "gateway_type", "gateway_id", "status", "availability", "up_s", "down_s", "planned_s", "unknown_s",
    "incidents",
)  # fmt: skip
"""Columns of CSV."""

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""First characters of texts that spreadsheets run as formulas."""

Json = dict[str, Any]


class ReportError(OperatorError):
    """Report that the relay does not give."""


async def run(settings: ReportSettings) -> int:
    """Print the report.

    Returns:
        0.

    Raises:
        ReportError: the relay is unreachable, or rejects a request.
        ConfigurationError: the token or a certificate cannot be used.
    """
    report = await _read(settings)
    if settings.json:
        print_json(orjson.dumps(report, option=orjson.OPT_INDENT_2))
    elif settings.csv:
        for line in _csv_lines(report):
            print_line(line)
    else:
        for line in _text_lines(report):
            print_line(line)
    return 0


async def _read(settings: ReportSettings) -> Json:
    tls = await asyncio.to_thread(tls_context, settings) if settings.url.startswith("wss") else None
    token = TokenSource(settings.token, settings.token_file).read()
    times = {"since": settings.since}
    if settings.until is not None:
        times["until"] = settings.until
    report: Json = {}
    gateways: list[Json] = []
    position: Json = {}
    while True:
        page = await _get(settings, tls, token, "/gateways", {**times, **position})
        report = report or {key: page[key] for key in ("since", "until")}
        # Further pages, and the incidents, are of the same range.
        times = {key: report[key] for key in ("since", "until")}
        gateways += page["gateways"]
        if not page["more"]:
            break
        position = {"after": page["next"]}
    incidents = await _get(settings, tls, token, "/incidents", {**times, "limit": "1000"})
    return {
        **report,
        "gateways": gateways,
        "incidents": incidents["incidents"],
        "more_incidents": incidents["count"] - len(incidents["incidents"]),
    }


async def _get(
    settings: ReportSettings, tls: ssl.SSLContext | None, token: str | None, path: str, query: Json
) -> Json:
    url = http_url(settings)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_DELAY)
        try:
            response = await fetch(
                f"{url}{path}?{urlencode(query)}", TIMEOUT, MAX_BYTES, headers=headers, tls=tls
            )
        except (OSError, TimeoutError) as error:
            hint = await explain(settings.url) or "check --url, and that the relay is running"
            raise ReportError(f"the relay at {url} is unreachable: {describe_failure(error)}", hint) from None
        if response.status != 503:
            break
    try:
        body = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        body = None
    if response.status == 200 and isinstance(body, dict):
        return body
    message = body.get("message") if isinstance(body, dict) else None
    if response.status in (401, 403):
        raise ReportError(f"the relay rejects the request: {message}", HINT)
    if message is None or response.status == 404:
        hint = "check that --url is that of a relay, and that its version has the history of gateways"
        raise ReportError(f"{url}{path} is answered with HTTP {response.status}", hint)
    raise ReportError(f"the relay cannot answer: {message}", "retry later, or run 'tickertape check'")


def _rows(report: Json) -> Iterator[Json]:
    for gateway in report["gateways"]:
        yield {**gateway, **gateway["availability"]["range"]}


def _csv_lines(report: Json) -> Iterator[str]:
    yield ",".join(COLUMNS)
    for row in _rows(report):
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow([_cell(row[column]) for column in COLUMNS])
        yield text.getvalue()


def _cell(value: Any) -> Any:
    """Return a value of CSV, with an apostrophe before a text that a spreadsheet would run as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _text_lines(report: Json) -> Iterator[str]:
    yield f"{report['since']} to {report['until']}"
    yield ""
    rows = [
        (
            f"{row['gateway_type']}/{row['gateway_id']}",
            row["status"],
            "-" if row["availability"] is None else f"{100 * row['availability']:.3f} %",
            *(format_seconds(row[key]) for key in ("down_s", "planned_s", "unknown_s")),
            str(row["incidents"]),
        )
        for row in _rows(report)
    ]
    heads = ("gateway", "status", "availability", "down", "planned", "unknown", "incidents")
    widths = [max(len(row[column]) for row in (heads, *rows)) for column in range(len(heads))]
    for row in (heads, *rows):
        # Texts to the left, numbers to the right.
        cells = [
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    truncated = sum(gateway.get("truncated", False) for gateway in report["gateways"])
    if truncated:
        yield f"{count(truncated, 'gateway')} with too many statuses: the oldest are unknown here"
    yield ""
    incidents = report["incidents"]
    yield count(len(incidents) + report["more_incidents"], "incident")
    for incident in incidents:
        notes = ["planned"] if incident["planned"] else []
        if (recovery := incident.get("recovery")) is not None:
            notes.append(f"recovery {recovery['phase']} after {count(recovery['attempts'], 'attempt')}")
        note = f" ({', '.join(notes)})" if notes else ""
        duration = format_seconds(incident["duration_s"]) if incident["end"] else "continues"
        name = f"{incident['gateway_type']}/{incident['gateway_id']}"
        yield f"{incident['start']}  {duration:>10}  {name}  {incident.get('error', '')}{note}".rstrip()
    if report["more_incidents"]:
        yield f"{report['more_incidents']} earlier incidents are not listed; use a later --since"


def format_seconds(seconds: float) -> str:
    """Format a duration with its two largest units."""
    whole = round(seconds)
    days, rest = divmod(whole, 86_400)
    hours, rest = divmod(rest, 3_600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days}d {hours:02}h"
    if hours:
        return f"{hours}h {minutes:02}m"
    return f"{minutes}m {left:02}s" if minutes else f"{left}s"
