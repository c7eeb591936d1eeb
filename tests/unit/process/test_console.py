"""Output to a terminal: plain lines, JSON, styled text and tracebacks."""

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable

import orjson
import pytest
from rich.table import Table
from rich.text import Text

from tests.support.deceptive import MARKUP, SURROGATES, TEXT, deceptive
from tickertape.process import console
from tickertape.process.terminal import Terminal

BAD = TEXT + SURROGATES


@pytest.mark.parametrize(
    "output",
    [
        lambda: console.print_line(BAD),
        lambda: console.print_lines(f"{BAD}\n{BAD}"),
        lambda: console.print_json(orjson.dumps({TEXT: TEXT})),
        lambda: console.print_error(BAD),
        lambda: console.print_notice("x", BAD),
        lambda: console.print_traceback(ValueError, ValueError(BAD), None),
    ],
)
def test_nothing_deceives_a_terminal(output: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of output is escaped and keeps markup as text."""
    output()
    out, err = capsys.readouterr()
    assert deceptive(out + err) == set()
    assert MARKUP in out + err


def test_json_keeps_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    """A program that parses the output receives the same value."""
    console.print_json(orjson.dumps({TEXT: [TEXT, "\U000e0041"]}, option=orjson.OPT_INDENT_2))
    assert json.loads(capsys.readouterr().out) == {TEXT: [TEXT, "\U000e0041"]}


def test_line_breaks_are_kept_only_where_the_program_writes_them(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is one line, a notice joins its lines, and a text keeps its lines."""
    console.print_line("a\nb")
    console.print_notice("x", "a\nb")
    console.print_lines("a\nb\n")
    out, err = capsys.readouterr()
    assert (out, err) == ("a\\nb\na\nb\n", "tickertape x: a b\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_styled_text_is_escaped(terminal: bool) -> None:
    """Strings, texts and tables contain no control characters but styles; markup is not interpreted."""
    file = io.StringIO()
    view = Terminal(
        file=file,
        force_terminal=terminal,
        soft_wrap=True,
        width=200,
        color_system="standard" if terminal else None,
    )
    table = Table(title=TEXT)
    table.add_column(TEXT)
    table.add_row(TEXT)
    for item in (BAD, Text(BAD, "bold red"), Text.assemble((BAD, "red"), BAD), table):
        view.print(item)
    view.print(MARKUP)
    text = file.getvalue()
    assert deceptive(text, styled=terminal) == set()
    assert re.search(r"\x1b\[1;31m", text) if terminal else "\x1b" not in text
    assert MARKUP in text


@pytest.mark.parametrize(
    "code",
    [
        "raise ValueError(text)",
        "T = type('T', (), {'__del__': lambda _: exec('raise OSError(text)', globals())}); T()",
        "import threading; t = threading.Thread(target=lambda: 1 / 0, name=text); t.start(); t.join()",
        "import threading; threading.Thread(target=exec, args=('raise OSError(text)', globals())).start()",
    ],
)
def test_a_traceback_is_escaped(code: str) -> None:
    """The traceback of an uncaught exception is complete, and escaped."""
    script = "from tickertape.process.console import escape_tracebacks as e; e(); text = {!r}; {}"
    done = subprocess.run(
        [sys.executable, "-c", script.format(BAD, code)], capture_output=True, encoding="utf-8", check=False
    )
    assert "Traceback (most recent call last)" in done.stderr
    assert re.search(r"^(ValueError|OSError|ZeroDivisionError): ", done.stderr, re.MULTILINE)
    assert deceptive(done.stderr) == set()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_without_unicode_ends_no_command(encoding: str) -> None:
    """What an encoding lacks is escaped, so that JSON keeps its value."""
    values = ["\u884c", "\U0001f4c8", "\xe9", "plain"]
    script = (
        "import json; from tickertape.process import console; console.escape_unencodable();"
        f"values = {values!r}; console.print_json(json.dumps(values, ensure_ascii=False).encode());"
        "console.print_line(values[0]); console.print_error(values[1])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        encoding=encoding,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        check=True,
    )
    document, line = done.stdout.splitlines()
    assert json.loads(document) == values
    assert line in ("\u884c", "\\u884c")
    assert done.stderr.strip() in ("\U0001f4c8", "\\ud83d\\udcc8")
