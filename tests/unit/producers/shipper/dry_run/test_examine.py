"""Examination of files: each number of the report, counted in another way."""

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickertape.contracts.events import format_time, parse_time
from tickertape.producers.shipper.dry_run.examine import Examination, FileReport
from tickertape.producers.shipper.dry_run.run import PrintingSink
from tickertape.producers.shipper.format_file.loader import load_formats
from tickertape.producers.shipper.parsing.parser import Parser, ParseSettings
from tickertape.producers.shipper.runner import run_shipper
from tickertape.producers.shipper.settings import ShipSettings

SAMPLES = Path(os.environ.get("LOG_SAMPLES", "samples"))
MIXED = {
    "app.log": "2026-01-31 09:30:45,123 INFO auth: user=bob password=hunter2 ok\n"
    "2026-01-31 09:30:46,001 ERROR pay: card 4111 1111 1111 1111 declined\n"
    'Traceback (most recent call last):\n  File "x.py", line 3, in f\n    g()\n\nValueError: no funds\n\n'
    "2026-01-31 09:30:47,000 CRITICAL auth: Authorization: Bearer abcdefgh12345678abcdefgh\n",
    "json.log": '{"time": "2026-01-31T09:30:45Z", "level": "warn", "msg": "slow\\nvery", '
    '"token": "abc12345xyz"}\n'
    '{"msg": "no level, no time", "password": ["hunter2", "hunter3"]}\n\n',
    "syslog.log": "Jan 31 09:30:45 web1 sshd[12]: accepted\n"
    "Jan 31 09:30:46 web1 sshd[12]: error: x\nplain text\n",
    "zone.log": "2026-01-31 09:30:45 IST lunch\n2026-01-31 09:30:45 UTC dinner\n",
    "clock.log": "09:30:45.123 started\n09:30:46.123 stopped\n",
    "cri.log": "2026-01-31T09:30:45.1Z stdout F first\n2026-01-31T09:30:46.1Z stdout P sec\n"
    "2026-01-31T09:30:46.2Z stdout F ond\n",
    "fix.log": "8=FIX.4.4|9=65|35=A|49=BUYER|56=SELLER|34=1|52=20260131-09:30:45.123|554=secret12|10=062|\n",
    "otlp.log": json.dumps({"resourceLogs": [{"scopeLogs": [{"logRecords": [
        {"timeUnixNano": "1769851845000000000", "severityText": "ERROR", "body": {"stringValue": "one"}},
        {"body": {"stringValue": "password=hunter2"}},
    ]}]}]}) + "\n",
    "empty.log": "",
    "blank.log": "\n\n  \n",
    "half.log": "INFO whole\nWARN no line break",
}  # fmt: skip


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the host's time zone to UTC."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def examine(path: Path, limit: int | None = None, **settings: object) -> FileReport:
    """Return the report on a file."""
    parsing = ParseSettings(**settings)  # type: ignore[arg-type]
    examination = Examination(
        str(path),
        "file",
        lambda counts, observer: Parser(parsing, "file", counts, observer),
        lambda event: event.level != "DEBUG",
        time.time(),
    )
    for _ in examination.read(os.open(path, os.O_RDONLY), limit):
        pass
    return examination.report


def ship(path: Path, capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    """Return the events that the shipper sends of a file."""
    settings = ShipSettings(paths=[str(path)], once=True, dry_run=True)
    assert asyncio.run(run_shipper(settings, PrintingSink(), None, asyncio.Event(), 1 << 20)) == 0
    return [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]


def compare(path: Path, capsys: pytest.CaptureFixture[str]) -> FileReport:
    """Compare a report with the file and with what the shipper sends; return the report."""
    before = format_time(time.time())
    events = ship(path, capsys)
    report = examine(path)
    data = path.read_bytes()
    assert report.counts.lines == data.count(b"\n") + (not data.endswith(b"\n") and bool(data))
    assert (report.size, report.examined) == (len(data), len(data))
    assert report.events == len(events) == report.formats.total()
    assert report.levels == Counter(event["level"] for event in events)
    placeholders = re.findall(r"\[redacted:([\w-]+)\]", json.dumps(events))
    assert report.counts.redacted == Counter(placeholders)
    timed = [str(event["timestamp"]) for event in events if str(event["timestamp"]) < before]
    assert report.timed == len(timed)
    if timed:
        assert report.first == min(timed, key=parse_time)[:-1]
        assert report.last == max(timed, key=parse_time)[:-1]
    return report


@pytest.mark.parametrize("name", MIXED)
def test_the_numbers_are_those_of_what_is_shipped(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines, events, levels, times and secrets are those of the events that the shipper sends."""
    path = tmp_path / name
    path.write_text(MIXED[name])
    os.utime(path, (1_770_000_000, 1_770_000_000))
    report = compare(path, capsys)
    shipped = ship(path, capsys)
    if "json" not in report.formats:
        several = [
            str(event["message"]).count("\n") + 1 for event in shipped if "\n" in str(event["message"])
        ]
        assert (report.joined, report.joined_lines) == (len(several), sum(several))


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="LOG_SAMPLES is not set")
def test_the_numbers_of_real_logs_are_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The numbers are right for the logs of lnav and loghub too."""
    paths = [
        path for path in sorted(SAMPLES.glob("*/*")) if path.suffix not in (".csv", "") and path.is_file()
    ]
    assert len(paths) > 100
    for path in paths:
        copy = tmp_path / path.name
        copy.write_bytes(path.read_bytes())
        os.utime(copy, (1_770_000_000, 1_770_000_000))
        compare(copy, capsys)


@pytest.mark.parametrize(
    ("name", "formats", "expected"),
    [
        ("app.log", {"python": 3}, {"without_zone": 3, "joined": 1, "joined_lines": 6}),
        ("json.log", {"json": 2}, {"timed": 1, "assumed_levels": 1}),
        (
            "syslog.log",
            {"syslog": 2, "plain": 1},
            {"without_zone": 2, "without_year": 2, "assumed_levels": 2},
        ),
        ("zone.log", {"plain": 2}, {"timed": 1, "unknown_zones": Counter({"IST": 1}), "assumed_levels": 2}),
        ("clock.log", {"plain": 2}, {"without_zone": 2, "without_date": 2, "without_year": 0}),
        ("cri.log", {"plain": 2}, {"timed": 2, "without_zone": 0}),
        ("fix.log", {"plain": 1}, {"timed": 1, "without_zone": 0}),
        ("otlp.log", {"json": 2}, {"timed": 1, "without_zone": 0, "assumed_levels": 1}),
        ("empty.log", {}, {"events": 0, "examined": 0}),
        ("blank.log", {}, {"events": 0, "examined": 5}),
        ("half.log", {"plain": 2}, {"timed": 0, "assumed_levels": 0}),
    ],
)
def test_what_is_assumed_is_counted(
    name: str, formats: dict[str, int], expected: dict[str, object], tmp_path: Path
) -> None:
    """The report tells what lines contain from what the shipper assumes."""
    path = tmp_path / name
    path.write_text(MIXED[name])
    os.utime(path, (1_770_000_000, 1_770_000_000))
    report = examine(path)
    assert report.formats == formats
    assert {key: getattr(report, key) for key in expected} == expected


def test_the_limit_ends_at_a_line(tmp_path: Path) -> None:
    """Of a large file only complete lines at its start are read, and the report says so."""
    path = tmp_path / "large.log"
    line = "2026-01-31T09:30:45Z INFO " + "x" * 73 + "\n"
    path.write_text(line * 3000)
    report = examine(path, 100_000)
    assert not report.is_complete
    assert 1000 <= report.counts.lines == report.events < 2000
    assert len(line) * report.events <= report.examined < len(line) * (report.events + 1)
    assert examine(path, 1_000_000).events == 3000


def test_own_formats_are_named(tmp_path: Path) -> None:
    """A format of the user has its name in the report, and its time zone is not an assumption."""
    formats = tmp_path / "formats.toml"
    key = "pattern = '(?P<time>\\S+ \\S+) %s (?P<message>.*)'\n"
    formats.write_text(
        f"[formats.a]\n{key % 'a'}time = '%Y.%m.%d %H:%M'\nzone = 'Asia/Shanghai'\n"
        f"[formats.b]\n{key % 'b'}time = '%m.%d %H:%M'\n[formats.c]\n{key % 'c'}zone = 'Asia/Shanghai'\n"
    )
    path = tmp_path / "a.log"
    path.write_text("2026.01.31 09:30 a x\n01.31 09:30 b x\n2026-01-31 09:30:00 c x\n2026-01-31 09:30:00 d\n")
    report = examine(path, own_formats=load_formats(formats))
    assert report.formats == {"a": 1, "b": 1, "c": 1, "plain": 1}
    assert (report.timed, report.without_zone, report.without_year, report.assumed_levels) == (4, 2, 1, 4)


def test_samples_are_the_first_of_their_kinds(tmp_path: Path) -> None:
    """The samples show each level, a joined event, a redacted one and one without a time, in order."""
    path = tmp_path / "a.log"
    path.write_text(
        "2026-01-31T09:30:45Z INFO one\n2026-01-31T09:30:45Z INFO two\n2026-01-31T09:30:45Z DEBUG three\n"
        "2026-01-31T09:30:45Z INFO password=hunter2\n2026-01-31T09:30:45Z ERROR four\n  more\nINFO five\n"
    )
    report = examine(path)
    messages = [sample.event.message for sample in report.samples]
    assert messages == ["one", "three", "password=[redacted:password]", "four\n  more", "INFO five"]
    assert [sample.lines for sample in report.samples] == [1, 1, 1, 2, 1]
    assert [sample.has_time for sample in report.samples] == [True] * 4 + [False]
    assert report.shipped == report.events - 1


def test_the_encoding_is_reported(tmp_path: Path) -> None:
    """The report has the encoding that the shipper detects."""
    path = tmp_path / "a.log"
    path.write_bytes("2026-01-31 09:30:45 ERROR 报单被拒\n".encode("utf-16"))
    report = examine(path)
    assert report.encoding.startswith("utf-16")
    assert (report.events, report.levels) == (1, {"ERROR": 1})
