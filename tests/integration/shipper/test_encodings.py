"""The command ``ship`` with files that are not UTF-8, and a real server."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from tests.integration.shipper.test_shipper import settings_of
from tests.support.clients.shipped import listening
from tests.support.encoded_lines import BY_ENCODING
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import expect_rejection
from tickertape.cli.ship import run

CHINESE = BY_ENCODING["gb18030"]


def dry_run(
    folder: Path, *options: str, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> tuple[list[dict[str, object]], str]:
    """Return the events that a dry run prints, and its notices."""
    argv = [
        sys.executable,
        "-m",
        "tickertape",
        "ship",
        "--dry-run",
        "--once",
        "--json",
        "--state-dir",
        str(folder / "state"),
    ]
    done = subprocess.run(
        [*argv, *options],
        input=stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=True,
        env={**os.environ, **(env or {})},
    )
    lines = done.stdout.decode().splitlines()
    return [orjson.loads(line)["event"] for line in lines], done.stderr.decode()


def test_a_dry_run_names_the_encoding_of_each_file(tmp_path: Path) -> None:
    """Files of UTF-8 need no notice; what is not text is replaced and marked."""
    (tmp_path / "ctp.log").write_bytes("".join(f"{text}\n" for text in CHINESE).encode("gb18030"))
    (tmp_path / "windows.log").write_bytes("\ufeffDienst für µs gestartet\r\n".encode("utf-16-le"))
    (tmp_path / "plain.log").write_bytes("登录 gut\n".encode() + b"damaged \xff\n")
    events, notices = dry_run(tmp_path, str(tmp_path / "*.log"))
    messages = {
        source: [one["message"] for one in events if one["source"] == source] for source in ("ctp", "windows")
    }
    assert messages == {"ctp": list(CHINESE), "windows": ["Dienst für µs gestartet"]}
    assert [one["metadata"] for one in events if one["source"] == "plain"] == [
        {},
        {"replaced_characters": True},
    ]
    assert "ctp.log: the encoding is gb18030" in notices
    assert "windows.log: the encoding is utf-16-le" in notices
    assert "plain.log" not in notices


def test_standard_input_of_windows(tmp_path: Path) -> None:
    """Its byte order mark is recognized, and it is not part of the first line."""
    data = "\ufeff10:30:45.123 ERROR Dienst für µs\r\nzwei\r\n".encode("utf-16-le")
    events, notices = dry_run(tmp_path, "-", stdin=data)
    assert [(one["level"], one["message"]) for one in events] == [
        ("ERROR", "Dienst für µs"),
        ("INFO", "zwei"),
    ]
    assert "the encoding is utf-16-le" in notices


@pytest.mark.parametrize("options", [("--encoding", "KOI8-R"), ()])
def test_a_given_encoding(options: tuple[str, ...], tmp_path: Path) -> None:
    """As an option or a variable, for standard input as for files."""
    env = {} if options else {"TICKERTAPE_ENCODING": "koi8-r"}
    data = "ошибка соединения\n".encode("koi8-r")
    (tmp_path / "app.log").write_bytes(data)
    events, notices = dry_run(tmp_path, str(tmp_path / "app.log"), *options, env=env)
    assert [one["message"] for one in events] == ["ошибка соединения"]
    events, _ = dry_run(tmp_path, "-", *options, stdin=data, env=env)
    assert [one["message"] for one in events] == ["ошибка соединения"]
    assert "encoding" not in notices


def test_an_unknown_encoding_is_an_error() -> None:
    """Before anything is read."""
    done = expect_rejection("ship", "app.log", "--encoding", "klingon")
    assert done.returncode == 2
    assert "'klingon' is not an encoding; use auto, utf-8, utf-16" in done.stderr


@pytest.mark.parametrize("codec", ["utf-16-le", "gb18030"])
def test_a_crash_repeats_and_changes_nothing(
    codec: str, nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """A shipper that is killed several times ships every line once, with the right text."""
    texts = [f"number {number} {CHINESE[number % len(CHINESE)]} 一" for number in range(3000)]
    start = "\ufeff" if codec == "utf-16-le" else ""
    (tmp_path / "app.log").write_bytes((start + "".join(f"{text}\r\n" for text in texts)).encode(codec))
    code = (
        "import asyncio, sys; from tickertape.cli.ship import ShipSettings, run; "
        "sys.exit(asyncio.run(run(ShipSettings.model_validate_json(sys.argv[1]))))"
    )
    settings = settings_of(nats_url, nats_prefix, tmp_path, multiline="off", format="plain")

    async def main() -> None:
        async with listening(nats_url, nats_prefix) as shipped:
            for count in (1, 1200):
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-c", code, settings.model_dump_json(), stderr=asyncio.subprocess.DEVNULL
                )
                try:
                    await shipped.until(count)
                finally:
                    process.kill()
                    await process.wait()
            assert await run(settings.model_copy(update={"once": True})) == 0
            await shipped.until(len(texts))
            await shipped.read()
            assert shipped.messages == texts

    asyncio.run(main())
