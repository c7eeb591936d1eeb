"""A host whose locale knows ASCII only, with file names that are not UTF-8."""

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, command, environment
from tickertape.process import console

ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
"""Environment in which Python encodes arguments, file names and output as ASCII."""


def test_text_is_utf8_and_file_names_are_bytes(tmp_path: Path) -> None:
    """A message beyond ASCII is published, the lines of a file are shipped, and data lies in any folder."""
    folder = tmp_path / os.fsdecode(b"\xff\xc3\xa4")
    folder.mkdir()
    relay = Relay(None, "--data-dir", str(folder), "--nats-port", "0", **ASCII)
    relay.program = command()
    with relay:
        lines = folder / os.fsdecode(b"app\xfe.log")
        lines.write_text("shipped: \u00fc\n", encoding="utf-8")
        common = ("--nats-url", relay.nats_url)
        message = json.dumps({"message": "published: \u00fc"}, ensure_ascii=False)
        for arguments in (
            ("publish", "log.info.desk", message),
            ("ship", str(lines), "--once", "--state-dir", str(folder)),
        ):
            done = subprocess.run(
                command(*arguments, *common),
                env=environment(**ASCII),
                capture_output=True,
                check=False,
                cwd=ROOT,
            )
            assert done.returncode == 0, done.stderr
        with urlopen(f"{relay.url}/events?since=1h", timeout=PATIENCE) as page:
            found = {one["event"].get("message") for one in json.load(page)["events"]}
        assert found >= {"published: \u00fc", "shipped: \u00fc"}

        assert relay.stop() == 0


@pytest.mark.parametrize(
    ("name", "expected"), [("ascii", True), ("ANSI_X3.4-1968", True), ("utf-8", False), ("iso8859-1", False)]
)
def test_only_ascii_is_replaced(name: str, expected: bool) -> None:
    """A locale with other characters keeps its encoding, which terminal and arguments use."""
    assert console.needs_utf8(name) is expected
    assert sys.getfilesystemencoding() == "utf-8"
