"""Report of a dry run: what it says, how wide it is, and when it has colours."""

import io
import os
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from tickertape.producers.shipper.dry_run.examine import FileReport
from tickertape.producers.shipper.dry_run.layout import share
from tickertape.producers.shipper.dry_run.report import Report

from tests.support.deceptive import TEXT, deceptive
from tickertape.cli.main import main
from tickertape.process.terminal import Terminal

STYLE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the host's time zone to UTC, and the width of the terminal."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Return a folder of mixed logs."""
    folder = tmp_path / "logs"
    folder.mkdir()
    for name, text in {
        "a.log": "2026-01-31 09:30:45,123 INFO auth: user=bob password=hunter2 ok\n"
        "2026-01-31 09:30:46,001 ERROR pay: card 4111 1111 1111 1111 declined\n  more\n  and more\n",
        "b.log": "Jan 31 09:30:45 web1 sshd[12]: accepted\n" * 1000,
        "a-name-that-is-much-too-long-for-the-first-column-of-the-table.json": '{"level": "debug",'
        f' "msg": "m", "time": "2026-01-31T09:30:45Z", "field": "{"行情" * 100}"}}\n',
        "empty.log": "",
        "old.log.1.gz": "x",
    }.items():
        (folder / name).write_text(text)
        os.utime(folder / name, (1_770_000_000, 1_770_000_000))
    (folder / "link.log").symlink_to("/etc/hostname")
    return folder


def dry_run(*options: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return what a dry run prints."""
    assert main(["ship", *options, "--dry-run"]) == 0
    return capsys.readouterr().out


def test_the_report_says_what_the_files_contain(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has a block, and the summary has a line for each, the totals and what to look at."""
    out = dry_run(f"{logs}/*", capsys=capsys)
    assert not STYLE.search(out), "there is no terminal"
    block = out[out.index(f"{logs}/a.log") :].split("\n\n")
    assert block[0].splitlines()[1:] == [
        "  format    python",
        "  events    2 from 4 lines · 1 joined from 3 lines",
        "  times     2026-01-31 09:30:45 to 09:30:46 UTC · no zone: UTC, of this host",
        "  levels    ERROR 1  INFO 1",
        "  redacted  password 1 · card 1",
    ]
    assert block[1].splitlines() == [
        "  2026-01-31 09:30:45  INFO      auth: user=bob password=[redacted:password] ok",
        "  2026-01-31 09:30:46  ERROR     pay: card [redacted:card] declined +2 lines",
    ]
    for line in (
        "  not read: it leads to /etc/hostname, which is in no folder that may be read; allow it with --root",
        "  times     2026-01-31 09:30:45 UTC · no zone: UTC, of this host",
        "            no year: as of the last write",
        "  levels    INFO 1,000  (no line with a level)",
        "  empty",
        "levels    ERROR 1  INFO 1,001  DEBUG 1",
        "redacted  password 1 · card 1",
        "! 1 file not read",
        "! 2 files (~) with times that name no zone: check --zone",
        "! 1 file (~) with times without a year or date: they are taken from the last",
        "1 compressed file left out: compressed files are read only as parts of their",
        "Dry run: nothing was shipped, and no state was changed.",
    ):
        assert line in out.splitlines() or line in out
    rows = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert rows["a.log"] == ["python", "2", "100%~", "100%", "1", "2"]
    assert rows["b.log"] == ["syslog", "1,000", "100%~", "0%", "-", "-"]
    assert rows["5"] == ["files", "1,003", "100%", "<1%", "1", "2"]


@pytest.mark.parametrize("columns", [60, 80, 100, 200])
@pytest.mark.parametrize("colour", [False, True])
def test_lines_are_as_wide_as_the_terminal(
    logs: Path,
    columns: int,
    colour: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """No line but those with paths is wider than the terminal, nor than 120 columns."""
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR" if colour else "NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    out = dry_run(f"{logs}/*", "--zone", "Asia/Shanghai", capsys=capsys)
    assert bool(re.search(r"\x1b\[[0-9;]*3\dm", out)) == colour, "colours"
    assert ("━" in out.partition("file ")[0]) == colour, "bars only with colours"
    lines = [STYLE.sub("", line) for line in out.splitlines()]
    wide = [line for line in lines if cell_len(line) > min(columns, 120)]
    assert [line for line in wide if str(logs) not in line and "not read" not in line] == []
    assert "check --zone" not in out
    assert "no zone: Asia/Shanghai" in out


def test_an_encoding_without_marks_has_plain_ones() -> None:
    """Characters that the encoding of the terminal lacks are replaced by plain ones, not by escapes."""
    data = io.BytesIO()
    console = Terminal(file=io.TextIOWrapper(data, "ascii", write_through=True), width=80)
    report = Report(None, is_limited=False, console=console)
    file = FileReport("/x/a.log", events=2, timed=2, without_zone=2, without_year=1)
    file.first = file.last = "2026-01-31T09:30:45"
    report.add(file)
    report.add(FileReport("/x/b.log", problem="x"))
    report.finish()
    assert b"no zone: UTC, of this host, 1 with no year" in data.getvalue().replace(b"\n            ", b", ")


def test_data_cannot_control_a_terminal(tmp_path: Path) -> None:
    """Names, messages, formats and time zones are escaped on a terminal."""
    console = Terminal(file=io.StringIO(), force_terminal=True, width=80)
    report = Report(None, is_limited=True, console=console)
    report.add(FileReport(f"/x/{TEXT}", problem=TEXT))
    report.add(FileReport(f"/x/y/{TEXT}"))
    report.finish()
    assert isinstance(console.file, io.StringIO)
    assert deceptive(console.file.getvalue(), styled=True) == set()


def test_standard_input_is_read_to_its_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe is reported like a file."""
    read_end, write_end = os.pipe()
    os.write(write_end, b"INFO one\nWARN two")
    os.close(write_end)
    with os.fdopen(read_end) as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        out = dry_run("-", capsys=capsys)
    assert out.startswith("standard input ")
    assert "  events    2 from 2 lines" in out
    assert "  levels    WARN 1  INFO 1" in out


def test_a_file_is_reported_once_and_partly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two globs for a file make one report; of a large file the start is read, unless --once is given."""
    path = tmp_path / "a.log"
    path.write_text("2026-01-31T09:30:45Z INFO one\n" * 150_000)
    globs = (f"{tmp_path}/*.log", f"{tmp_path}/a*")
    out = dry_run(*globs, capsys=capsys)
    assert out.count(str(path)) == 1
    assert "first 4.0 MiB of 4.3 MiB" in out
    assert "Only the start of the file was read; --once reads everything." in out
    out = dry_run(*globs, "--once", capsys=capsys)
    assert "  events    150,000 from 150,000 lines" in out
    assert "Only the start" not in out


def test_json_needs_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    """--json alone would have no meaning, and the report has no place for a journal."""
    assert main(["ship", "x.log", "--json"]) == 2
    assert "add --dry-run" in capsys.readouterr().err
    assert main(["ship", "--journal", "--dry-run"]) == 2
    assert "add --json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 0, "-"), (0, 9, "0%"), (1, 999, "<1%"), (1, 2, "50%"), (998, 999, ">99%"), (999, 999, "100%")],
)
def test_a_share_is_never_more_than_it_is(part: int, whole: int, expected: str) -> None:
    """0 % and 100 % mean none and all."""
    assert share(part, whole) == expected
