"""The command ``ship`` with a format file: which files and lines have its formats, and a real server."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.shipper.test_shipper import settings_of
from tests.support.clients.shipped import listening
from tests.support.patience import PATIENCE
from tickertape.cli.ship import run

FORMATS = r"""
[formats.trader]
pattern = '(?P<time>[\d.]+ [\d:.]+)\|(?P<level>\w)\|(?P<source>\w+)\|(?P<password>\w*)\|(?P<message>.*)'
time = "%Y.%m.%d %H:%M:%S.%f"
zone = "Asia/Shanghai"
levels = { N = "INFO", E = "ERROR" }
files = [FILES]
start = '^\d{4}\.'
"""
LINES = "2026.01.31 09:30:45.123|E|order_gw|hunter2|rejected\nReason: margin\n2026.01.31 09:30:46|N|md||ok\n"


@pytest.fixture
def formats(tmp_path: Path) -> Path:
    """Return the path of a format file for ``trader*.log`` and standard input."""
    path = tmp_path / "formats.toml"
    path.write_text(FORMATS.replace("FILES", '"trader*.log", "-"'))
    return path


def dry_run(*options: str, stdin: str = "") -> list[dict[str, object]]:
    """Return the events that a dry run prints."""
    argv = [sys.executable, "-m", "tickertape", "ship", "--dry-run", "--once", "--json", *options]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return [json.loads(line)["event"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["trader.log", "trader-7.log.1", "-"])
def test_a_format_is_used_for_its_files(tmp_path: Path, formats: Path, name: str) -> None:
    """A file that the format names, a rotated one and standard input have its fields."""
    path = name if name == "-" else str(tmp_path / name)
    if name != "-":
        Path(path).write_text(LINES)
    options = ("--format-file", str(formats), "--state-dir", str(tmp_path / "state"))
    first, second = dry_run(path, *options, stdin=LINES)
    assert (first["timestamp"], first["level"], first["source"]) == (
        "2026-01-31T01:30:45.123Z", "ERROR", "order_gw",
    )  # fmt: skip
    assert first["message"] == "rejected\nReason: margin"
    assert first["metadata"] == {"password": "[redacted:password]"}
    assert (second["timestamp"], second["level"], second["message"]) == (
        "2026-01-31T01:30:46.000Z", "INFO", "ok",
    )  # fmt: skip


def test_other_files_do_not_have_the_format(tmp_path: Path, formats: Path) -> None:
    """The same lines in another file are read as without the format file."""
    (tmp_path / "other.log").write_text(LINES)
    events = dry_run(str(tmp_path / "other.log"), "--format-file", str(formats))
    assert [event["source"] for event in events] == ["other"] * 3


def test_events_of_a_format_are_shipped(
    nats_url: str, nats_prefix: str, tmp_path: Path, formats: Path
) -> None:
    """Events of an own format are valid for the contract, and arrive once."""
    (tmp_path / "trader.log").write_text(LINES * 50)
    settings = settings_of(nats_url, nats_prefix, tmp_path, "trader.log", format_file=formats)

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings.model_copy(update={"once": True})) == 0
            await shipped.until(100)
            await shipped.read()
            assert shipped.messages == ["rejected\nReason: margin", "ok"] * 50

    asyncio.run(main())
