"""Output of findings: lines, one JSON object, and a page of 80 columns."""

import io
import json
import re
from typing import get_args

import pytest

from tickertape.cli.check.finding import Finding, Name
from tickertape.cli.check.report import Sections, passed, print_report, to_json
from tickertape.errors import OperatorError
from tickertape.process.terminal import Terminal

SECTIONS: Sections = {
    "NATS": [Finding.ok("nats", "NATS 2.15.1 answers")],
    "This machine": [
        Finding.warn("clock", "the clock is 1 s behind", "use NTP"),
        Finding.error(
            "main_port",
            "main port 127.0.0.1:8080 is in use by another program that has a name "
            "(long-enough-to-wrap, pid 1)",
            "give another --port, or end that program, or both of them, whichever is the easier thing to do",
        ),
    ],
    "Clients": [],
}
FINE: Sections = {"NATS": [Finding.ok("nats", "it answers")]}


def printed(sections: Sections, *, terminal: bool, encoding: str = "utf-8") -> str:
    """Return the output on a terminal of 80 columns, or in a pipe."""
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    print_report(sections, Terminal(file=file, width=80, force_terminal=terminal, color_system=None))
    file.flush()
    assert isinstance(file.buffer, io.BytesIO)
    return file.buffer.getvalue().decode(encoding)


def page(sections: Sections, encoding: str = "utf-8") -> list[str]:
    """Return the lines of the page, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", printed(sections, terminal=True, encoding=encoding))
    return [line.rstrip() for line in text.splitlines()]


def test_a_pipe_gets_a_line_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets one line per finding, of any length and without colours."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    lines = printed(SECTIONS, terminal=False).splitlines()
    assert [line[:7] for line in lines] == ["ok     ", "warn   ", "error  "]
    assert lines[1] == "warn   the clock is 1 s behind; use NTP"
    assert "\x1b" not in "".join(lines)
    assert len(lines[2]) > 110


def test_a_terminal_gets_a_page_in_80_columns() -> None:
    """A terminal gets headings, a word for each state, aligned continuation lines, and the totals at the
    end.
    """
    assert page(SECTIONS) == [
        "NATS",
        "✓ ok    NATS 2.15.1 answers",
        "",
        "This machine",
        "• warn  the clock is 1 s behind",
        "        → use NTP",
        "✗ error main port 127.0.0.1:8080 is in use by another program that has a name",
        "        (long-enough-to-wrap, pid 1)",
        "        → give another --port, or end that program, or both of them, whichever",
        "          is the easier thing to do",
        "",
        "1 error, 1 warning, 1 ok",
    ]


def test_colours_are_not_alone() -> None:
    """Colours appear only on a terminal, and only in addition to the words."""
    text = printed(SECTIONS, terminal=True)
    for word in ("✓ ok", "• warn", "✗ error"):
        assert word in text


def test_a_terminal_without_such_characters_gets_others() -> None:
    """A terminal without Unicode gets ASCII marks."""
    lines = page(SECTIONS, "ascii")
    assert lines[1] == "  ok    NATS 2.15.1 answers"
    assert lines[4:6] == ["- warn  the clock is 1 s behind", "        -> use NTP"]
    assert lines[6].startswith("! error main port")


def test_a_page_without_errors_states_that() -> None:
    """The last line says that there are no errors."""
    assert page(FINE)[-1] == "No errors, 0 warnings, 1 ok"


def test_findings_are_not_interpreted_as_markup() -> None:
    """Square brackets in a path are not interpreted as markup."""
    assert page({"X": [Finding.ok("data_dir", "[red]/data[/red]")]})[1] == "✓ ok    [red]/data[/red]"


def test_json_is_one_object_with_the_documented_shape() -> None:
    """JSON output is one object with the documented fields."""
    text = to_json(SECTIONS)
    assert b"\n" not in text
    output = json.loads(text)
    assert output["ok"] is False
    assert [one["name"] for one in output["checks"]] == ["nats", "clock", "main_port"]
    assert output["checks"][1] == {
        "name": "clock",
        "state": "warn",
        "text": "the clock is 1 s behind",
        "hint": "use NTP",
    }
    assert output["checks"][0]["hint"] == ""
    assert json.loads(to_json(FINE))["ok"] is True


def test_only_errors_count() -> None:
    """Only errors make the check fail; warnings do not."""
    assert not passed(SECTIONS)
    assert passed({"X": [Finding.warn("clock", "x")]})


def test_the_documented_names_are_the_names() -> None:
    """The command's documentation lists exactly the names that programs may rely on."""
    from tickertape.cli.check import command as check

    listed = (check.__doc__ or "").partition("``nats``")[2].partition("The exit code")[0]
    names = set(re.findall(r"``([a-z_]+)``", "``nats``" + listed))
    assert names == {*get_args(Name)}


def test_an_error_becomes_a_finding_by_its_fields() -> None:
    """An error's message and hint are used as they are, and not parsed, since a message may contain
    semicolons.
    """
    one = Finding.from_error("nats", OperatorError("a; b", "do c; then d"))
    assert (one.state, one.text, one.hint) == ("error", "a; b", "do c; then d")
    assert str(one) == "error  a; b; do c; then d"
