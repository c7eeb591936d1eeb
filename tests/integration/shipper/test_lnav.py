"""Comparison of times and levels with lnav, and with the annotations of loghub.

The samples of lnav and loghub are not part of this repository: set ``LOG_SAMPLES`` to a folder
with ``lnav/`` (test data of tstack/lnav) and ``loghub/`` (of logpai/loghub).
"""

import csv
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tickertape.producers.shipper.encodings.text_decoder import TextDecoder
from tickertape.producers.shipper.lines.encoded_lines import EncodedLines
from tickertape.producers.shipper.parsing.levels import level_of
from tickertape.producers.shipper.parsing.parser import ParsedEvent, Parser, ParserCounts, ParseSettings

SAMPLES: Final = Path(os.environ.get("LOG_SAMPLES", "samples"))
OWN_LINES: Final = (
    "2025-06-24 10:30:45,672:DEBUG:first",
    "2025-06-24T10:30:46.313913+00:00 err rbd  [22968]lotuscreds:ERROR:second",
    "20250624.103047,672:WARN:third",
    "[2025-06-24 10:30:48,061] INFO [m:108] fourth",
    "2025-06-24T10:30:49.854Z\tinfo\tMetrics\tfifth",
)
LEVELS: Final = {"debug": "DEBUG", "info": "INFO", "warning": "WARN", "error": "ERROR", "fatal": "CRITICAL"}
"""Levels of lnav that are not guesses from words of the message."""

# lnav shows the local time of a zone, and shifts times of lines that are out of order.
_ZONE: Final = re.compile(r"\d(?: ?[+-]\d\d:?\d\d| [A-Z]{3,4}\b)")
_DATE: Final = re.compile(r"(?:19|20)\d\d[-/.]?\d\d[-/.]?\d\d|\d\d/[A-Z][a-z]{2}/\d{4}|\d\d \d{4}\]|\d{10}")

needs_lnav = pytest.mark.skipif(shutil.which("lnav") is None, reason="lnav is not installed")
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="LOG_SAMPLES is not set")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the host's time zone to UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def read_with_lnav(path: Path, out: Path) -> list[dict[str, Any]]:
    """Return the messages that lnav finds in a file: line, time and level."""
    out.unlink(missing_ok=True)
    query = ";SELECT log_line, log_actual_time, log_level, log_text FROM all_logs"
    environment = {**os.environ, "TERM": "dumb", "TZ": "UTC", "HOME": str(out.parent)}
    subprocess.run(
        ["lnav", "-n", "-c", query, "-c", f":write-json-to {out}", str(path)],
        env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=120, check=False,
    )  # fmt: skip
    return json.loads(out.read_text(errors="replace") or "[]") if out.exists() else []


def read(path: Path) -> tuple[list[str], dict[int, ParsedEvent]]:
    """Return the lines of a file, and the event of each."""
    data = path.read_bytes().removesuffix(b"\n").split(b"\n")
    lines = [line.removesuffix(b"\r") for line in data]
    ends = list(range(1, len(lines) + 1))
    # Times without a year are near the last write, which is also the time of events without one.
    parser = Parser(ParseSettings(), "app", ParserCounts())
    events = [*parser.feed(lines, ends, path.stat().st_mtime), *parser.flush(path.stat().st_mtime)]
    found: dict[int, ParsedEvent] = {}
    start = 0
    for event in events:
        found |= dict.fromkeys(range(start, event.end), event)
        start = event.end
    return [line.decode("utf-8", "replace") for line in lines], found


@needs_lnav
@pytest.mark.parametrize("line", OWN_LINES)
def test_times_and_levels_agree_with_lnav(line: str, tmp_path: Path) -> None:
    """Times and levels of lines that lnav reads are the same."""
    path = tmp_path / "app.log"
    path.write_text(f"{line}\n{line}\n")
    rows = read_with_lnav(path, tmp_path / "out.json")
    _, events = read(path)
    assert len(rows) == len(events) == 2
    for row in rows:
        event = events[row["log_line"]]
        assert event.timestamp[:23].replace("T", " ") == row["log_actual_time"]
        assert event.level == LEVELS[row["log_level"]]


@needs_lnav
@needs_samples
@pytest.mark.parametrize("folder", ["lnav", "loghub"])
def test_times_of_samples_agree_with_lnav(folder: str, tmp_path: Path) -> None:
    """At least 99 % of the lines have a time of those in which lnav finds one, and none is wrong."""
    found = total = 0
    wrong = []
    for path in sorted((SAMPLES / folder).glob("*")):
        rows = read_with_lnav(path, tmp_path / "out.json")
        if path.suffix == ".csv" or not rows:
            continue
        lines, events = read(path)
        read_at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(path.stat().st_mtime))
        numbers: dict[str, list[int]] = {}
        for number, line in enumerate(lines):
            numbers.setdefault(re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).strip()[:70], []).append(number)
        for row in rows:
            same = numbers.get(row["log_text"].split("\n")[0].strip()[:70])
            if not same:
                continue
            line, event = lines[same[0]], events.get(same[0])
            if not re.search(r"\d\d:\d\d|\d{10}|\d{6}[. ]\d{6}", line) or row["log_level"] == "invalid":
                continue  # lnav gives lines without a time that of their neighbours
            total += 1
            if event is None or event.timestamp.startswith(read_at):
                continue
            found += 1
            is_same = event.timestamp[:19].replace("T", " ") == row["log_actual_time"][:19]
            if not is_same and len(same) == 1 and _DATE.search(line[:40]) and not _ZONE.search(line[:80]):
                wrong.append((path.name, line[:80], event.timestamp, row["log_actual_time"]))
    assert not wrong
    assert found >= 0.99 * total > 0


@needs_samples
def test_levels_of_loghub_are_right() -> None:
    """At least 99.5 % of the lines have the level that the authors of loghub give."""
    right = total = 0
    for path in sorted((SAMPLES / "loghub").glob("*.csv")):
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        if "Level" not in rows[0] or rows[0]["Level"] == "combo":  # a host name
            continue
        _, events = read(path.with_name(path.name.removesuffix("_structured.csv")))
        for number, row in enumerate(rows):
            total += 1
            right += events[number].level == level_of(row["Level"])
    assert right >= 0.995 * total > 0


@needs_samples
def test_samples_of_utf_8_are_read_as_utf_8() -> None:
    """No line of theirs is taken for another encoding, and nothing in them for UTF-16."""
    for path in (path for path in SAMPLES.glob("*/*") if path.is_file()):
        decoder, data = TextDecoder(), path.read_bytes() + b"\n"
        buffer = EncodedLines(decoder)
        buffer.restart(0, b"", "")
        lines, ends, _ = buffer.split(data, 0)
        texts, _, replaced = decoder.decode_lines(lines, ends)
        assert (decoder.encoding, decoder.wide) == ("utf-8", "")
        assert all(index in replaced or lines[index] == text.encode() for index, text in enumerate(texts))
