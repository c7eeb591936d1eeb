"""The journal of systemd as a source of the shipper: real journals, and the real ``journalctl``."""

import asyncio
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tickertape.producers.shipper.journal.entries import is_same
from tickertape.producers.shipper.journal.journal_reader import MAX_BUFFERED, JournalReader, JournalSettings

from tests.support.clients.shipped import listening
from tests.support.patience import PATIENCE
from tests.support.programs.journal import journal, needs_journal
from tests.support.programs.stop_signal import stopped_at_end
from tickertape.cli.ship import ShipSettings, run

pytestmark = needs_journal

SERVICE = {"SYSLOG_IDENTIFIER": "app", "_SYSTEMD_UNIT": "app.service", "_PID": "7", "_TRANSPORT": "stdout"}
"""Fields of what a service prints."""


def settings_of(url: str, prefix: str, folder: Path, **more: Any) -> ShipSettings:
    return ShipSettings(
        nats_url=url, subject_prefix=prefix, journal=True, journal_dir=folder / "journal",
        state_dir=folder / "state", **more,
    )  # fmt: skip


def test_entries_become_events(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Level, source, time and fields of an entry are those of its event; a second run ships nothing."""
    with journal(tmp_path / "journal" / "a.journal") as entries:
        entries.add("disk full", PRIORITY="2", SYSLOG_IDENTIFIER="kernel", _TRANSPORT="kernel")
        entries.add("2025-06-15 12:00:00,123 WARNING margin low", **SERVICE)
        entries.add("printed", PRIORITY="6", ORDER_ID="77", **SERVICE)
        entries.add("two\nlines", PRIORITY="4", _SYSTEMD_UNIT="b.service", _HOSTNAME="h", CODE_LINE="12")
        entries.add(b"bytes \xff\x01", PRIORITY="3", _COMM="c", NOTE=["x", "y"])
        entries.add("login with password=hunter2", PRIORITY="5", SYSLOG_IDENTIFIER="auth", TOKEN="abc123")
    settings = settings_of(nats_url, nats_prefix, tmp_path, once=True)

    async def main() -> list[dict[str, Any]]:
        async with listening(nats_url, nats_prefix) as shipped:
            for _ in range(2):
                assert await run(settings) == 0
                await shipped.until(6)
                await shipped.read()
            return shipped.events

    events = asyncio.run(main())
    assert [(event["level"], event["source"], event["message"]) for event in events] == [
        ("CRITICAL", "kernel", "disk full"),
        ("WARN", "app", "margin low"),
        ("INFO", "app", "printed"),
        ("WARN", "b", "two\nlines"),
        ("ERROR", "c", "bytes \ufffd"),
        ("INFO", "auth", "login with password=[redacted:password]"),
    ]
    assert events[0]["timestamp"] == "2025-06-15T15:06:40.000Z"
    assert events[2]["timestamp"] == "2025-06-15T15:06:40.002Z"
    metadata = [event["metadata"] for event in events]
    assert metadata[2] == {"unit": "app.service", "pid": 7, "transport": "stdout", "order_id": "77"}
    assert metadata[3] == {"unit": "b.service", "host": "h", "code_line": 12}
    assert metadata[4] == {"note": "x\ny", "replaced_characters": True}
    assert "abc123" not in str(metadata[5])


def test_messages_that_are_not_utf_8_are_read(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """The journal keeps their bytes; ``--encoding`` is that of files, and changes nothing here."""
    with journal(tmp_path / "journal" / "a.journal") as entries:
        entries.add("CTP:不合法的登录".encode("gb18030"), PRIORITY="3", _COMM="c")
        entries.add("Größe 登录", PRIORITY="3", _COMM="c")
    settings = settings_of(nats_url, nats_prefix, tmp_path, once=True, encoding="gb18030")

    async def main() -> list[dict[str, Any]]:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(2)
            return shipped.events

    events = asyncio.run(main())
    assert [event["message"] for event in events] == ["CTP:不合法的登录", "Größe 登录"]
    assert not any(event["metadata"].get("replaced_characters") for event in events)


def test_lines_of_a_traceback_are_one_event(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """The lines that one process prints are joined, although another one prints in between."""
    traceback = [
        "Traceback (most recent call last):",
        '  File "a.py", line 1, in <module>',
        "ValueError: no price",
    ]
    with journal(tmp_path / "journal" / "a.journal") as entries:
        for line in traceback:
            entries.add(line, **SERVICE)
            entries.add("tick", SYSLOG_IDENTIFIER="clock", _PID="8")
        entries.add("after", **SERVICE)

    async def main() -> list[str]:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings_of(nats_url, nats_prefix, tmp_path, once=True)) == 0
            await shipped.until(5)
            return shipped.messages

    assert asyncio.run(main()) == ["\n".join(traceback), "tick", "tick", "tick", "after"]


def test_kills_lose_and_repeat_nothing(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Entries are shipped once and in order, although the shipper is killed while they are written."""
    total, choose = 3_000, random.Random(7)
    argv = [
        sys.executable, "-m", "tickertape", "ship", "--journal", "--journal-dir", str(tmp_path / "journal"),
        "--nats-url", nats_url, "--subject-prefix", nats_prefix, "--state-dir", str(tmp_path / "state"),
    ]  # fmt: skip
    expected = [f"entry {number}" for number in range(total)]

    async def main() -> list[str]:
        async with listening(nats_url, nats_prefix) as shipped:
            with journal(tmp_path / "journal" / "a.journal") as entries:
                written = 0
                while written < total:
                    process = await asyncio.create_subprocess_exec(*argv, stderr=subprocess.DEVNULL)
                    try:
                        for number in range(written, min(total, written + 500)):
                            entries.add(f"entry {number}", **{**SERVICE, "_PID": str(number % 3)})
                            written += 1
                        await shipped.until(written - choose.randrange(450))
                    finally:
                        process.kill()
                        await process.wait()
                async with stopped_at_end(run(settings_of(nats_url, nats_prefix, tmp_path))):
                    await shipped.until(total)
                    await shipped.read()
            return shipped.messages

    assert asyncio.run(main()) == expected


def test_units_are_selected(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """Only the entries of the given units are shipped, beside the lines of files."""
    (tmp_path / "x.log").write_text("a line\n")
    with journal(tmp_path / "journal" / "a.journal") as entries:
        for unit in ("app.service", "other.service", "app-2.service"):
            entries.add(f"of {unit}", _SYSTEMD_UNIT=unit)
    settings = settings_of(
        nats_url, nats_prefix, tmp_path, once=True, unit=["app*.service"], paths=[str(tmp_path / "x.log")]
    )

    async def main() -> list[str]:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            await shipped.until(3)
            await shipped.read()
            return shipped.messages

    assert sorted(asyncio.run(main())) == ["a line", "of app-2.service", "of app.service"]


def test_removed_entries_are_reported(
    nats_url: str, nats_prefix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If the journal was vacuumed past the last checkpoint, that is reported, and the rest is shipped."""
    folder = tmp_path / "journal"
    with journal(folder / "a.journal") as entries:
        entries.add("shipped")
    settings = settings_of(nats_url, nats_prefix, tmp_path, once=True)

    async def main() -> list[str]:
        async with listening(nats_url, nats_prefix) as shipped:
            assert await run(settings) == 0
            (folder / "a.journal").unlink()
            with journal(folder / "b.journal") as entries:
                entries.add("first", PRIORITY="3")
                entries.add("second")
            capsys.readouterr()
            assert await run(settings) == 0
            await shipped.until(3)
            return shipped.messages

    # Times overlap those of the removed file, but the contents differ.
    assert asyncio.run(main()) == ["shipped", "first", "second"]
    assert "were removed from the journal; those that followed may be lost" in capsys.readouterr().err


def test_a_reader_keeps_little_in_memory(tmp_path: Path) -> None:
    """While entries are not taken, ``journalctl`` waits; those that are read again follow a cursor."""
    total, size = 60, 400_000
    with journal(tmp_path / "journal" / "a.journal") as entries:
        for number in range(total):
            entries.add(f"{number} " + "x" * size)
    settings = JournalSettings(folder=str(tmp_path / "journal"), follow=False)

    async def main() -> None:
        async with asyncio.timeout(PATIENCE):
            found: list[str] = []
            changed = asyncio.Event()
            reader = JournalReader(settings, "", changed.set, print)
            reading = asyncio.create_task(reader.run())
            sought = ""
            while not (reader.ended and not len(reader)):
                await changed.wait()
                changed.clear()
                assert reader.buffered < MAX_BUFFERED + 2 * size
                for entry in reader.take(3):
                    found.append(entry.line.text.partition(" ")[0])
                    sought = sought or entry.cursor * (found[-1] == "9")
                    if found[-1] == "20" and found.count("20") == 1:
                        reader.seek(sought)
                        break
                if len(reader):
                    changed.set()
            await reading
            first = [str(number) for number in range(21)]
            assert found[: len(first)] == first
            assert found[len(first) :][:11] == [str(number) for number in range(10, 21)]

    asyncio.run(main())


def test_a_cursor_identifies_its_entry() -> None:
    """The number of a file of the journal is not part of an entry's identity."""
    cursor = "s=1;i=2;b=3;m=4;t=5;x=6"
    assert is_same(cursor, "s=9;i=8;b=3;m=4;t=5;x=6")
    assert not is_same(cursor, "s=1;i=2;b=3;m=4;t=5;x=7")


def test_a_missing_journalctl_is_an_error(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The error says what to do, and the exit code is that of a failure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert asyncio.run(run(settings_of(nats_url, nats_prefix, tmp_path))) == 1
    assert "journalctl cannot be started: No such file or directory; check that" in capsys.readouterr().err
