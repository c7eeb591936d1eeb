"""``tickertape check`` against broken set-ups: the table in docs/troubleshooting.md, walked row by row.

The table is the documentation and the expectation. In it, ``…`` stands for any text.
"""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, get_args

import pytest

from tests.support.check_setups import PASSWORD, SETUPS, Desk, run_shared_server
from tests.support.paths import ROOT
from tests.support.programs.relay_process import environment
from tests.support.servers.nats_server import NatsServer
from tickertape.cli import main
from tickertape.cli.check import command
from tickertape.cli.check.finding import Name

PAGE = ROOT / "docs" / "troubleshooting.md"


class Row(NamedTuple):
    """Row of the table."""

    setup: str
    name: str
    state: str
    text: str
    fix: str


def rows() -> list[Row]:
    """Read the table."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]
    found = []
    for setup, name, text, fix in cells:
        state, _, name = name.partition(" ")
        found.append(Row(setup, name.strip("`"), state, text, fix))
    return found


def matches(pattern: str, text: str) -> bool:
    """Return whether a text matches a cell of the table."""
    return bool(re.fullmatch(".*?".join(map(re.escape, pattern.split("…"))), text, re.DOTALL))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run the server that most set-ups use."""
    with ExitStack() as stack:
        yield run_shared_server(tmp_path_factory.mktemp("nats"), stack)


def test_the_table_is_complete() -> None:
    """Every set-up has one row, and every finding exists."""
    table = rows()
    assert [row.setup for row in table] == list(SETUPS)
    assert len(table) >= 20
    assert {row.name for row in table} <= set(get_args(Name))


def check(desk: Desk, setup: str, capfd: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """Run the check of a set-up; return its JSON output."""
    arguments = SETUPS[setup](desk)
    if not arguments[0].endswith(".yaml"):
        defaults = ["--port", "0"] * ("--port" not in arguments)
        defaults += ["--ops-port", "0"] * ("--ops-port" not in arguments)
        if not {"--nats-url", "--nats-port"} & set(arguments):
            defaults += desk.user("all")
        arguments = [*arguments, *defaults]
    capfd.readouterr()
    if desk.wrapper:
        line = [*desk.wrapper, sys.executable, "-m", "tickertape", "check", "--json", *arguments]
        done = subprocess.run(line, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
        code, output = done.returncode, done.stdout
    else:
        settings = main.parse(command.CheckSettings, ["--json", *arguments])
        code = asyncio.run(command.run(settings, desk.clock))
        output = capfd.readouterr().out
    found: dict[str, Any] = json.loads(output)
    assert code == (0 if found["ok"] else 1)
    assert PASSWORD not in output
    return found


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.setup.replace(" ", "-"))
def test_a_broken_setup_is_diagnosed(
    row: Row, server: NatsServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The check reports the fault as the table says, with the fix, and nothing else is an error."""
    with ExitStack() as stack:
        found = check(Desk(tmp_path, server, stack), row.setup, capfd)
    findings = found["checks"]
    named = [finding for finding in findings if (finding["name"], finding["state"]) == (row.name, row.state)]
    assert [one for one in named if matches(row.text, one["text"])], findings
    assert [one for one in named if matches(row.text, one["text"]) and matches(row.fix, one["hint"])], named
    others = {one["name"] for one in findings if one["state"] == "error"} - {row.name}
    assert others <= ALSO.get(row.setup, set()), findings
    assert row.fix


ALSO = {
    "the credentials have expired": {"nats"},
    "everyone may connect": {"tls"},
    "the host is another machine's": {"readers", "tls"},
}
"""Errors of other checks that are consequences of the same fault."""
