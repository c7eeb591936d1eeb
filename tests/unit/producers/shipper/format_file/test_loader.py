"""Format files: which are accepted, what is said about others, and the files that a format applies to."""

from pathlib import Path

import pytest
from tickertape.producers.shipper.format_file.loader import FormatFileError, load_formats, select_formats
from tickertape.producers.shipper.settings import ShipSettings

from tickertape.cli.check.shipper import check_format_file
from tickertape.cli.main import main
from tickertape.errors import ConfigurationError

GOOD = "pattern = '(?P<time>\\S+) (?P<level>\\w+) (?P<message>.*)'\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a format file."""
    return tmp_path / "formats.toml"


@pytest.mark.parametrize(
    ("body", "line", "expected"),
    [
        ("x = 1", 1, "x: unknown key; write [formats.NAME]"),
        ("[format.a]", 1, "format: unknown table; did you mean formats?"),
        ("formats = 1", 1, "formats: is not a table; write [formats.NAME]"),
        ("[formats]\na = 1", 2, "formats.a: expected a table; correct it"),
        ("[formats.json]\n" + GOOD, 1, "formats.json: is the name of a built-in format; choose another one"),
        ("[formats.'a b']\n" + GOOD, 1, "formats.a b: is not a valid name; use 1 to 32 letters"),
        ("[formats.a]\nzone = 'UTC'", 1, "formats.a: has no pattern; write pattern = '...'"),
        ("[formats.a]\npatern = 'x'", 2, "formats.a.patern: unknown key; did you mean pattern?"),
        (
            "[formats.a]\npattern = 'x'\nx = 1",
            3,
            "formats.a.x: unknown key; the keys are pattern, time, zone",
        ),
        ("[formats.a]\npattern = 1", 2, "formats.a.pattern: expected a string; write it in quotes"),
        ("[formats.a]\npattern = ''", 2, "formats.a.pattern: is empty; write a value, or remove the key"),
        ("[formats.a]\npattern = '('", 2, "formats.a.pattern: the expression is not valid in RE2: missing )"),
        (
            "[formats.a]\npattern = '(?P<message>a)(?=b)'",
            2,
            "RE2 has neither look-around nor back-references",
        ),
        ("[formats.a]\npattern = '(?P<message>.*)'", 2, "formats.a.pattern: matches an empty line; require"),
        ("[formats.a]\npattern = '(.+)'", 2, "formats.a.pattern: has no named group; write (?P<message>.*)"),
        (
            "[formats.a]\n" + GOOD + "level = 'lvl'",
            3,
            "'lvl' is not a group of the pattern; its groups are time",
        ),
        (
            "[formats.a]\n" + GOOD + "source = 'time'",
            3,
            "'time' is the group of the time; name another group",
        ),
        (
            "[formats.a]\n" + GOOD + "source = 'level'",
            1,
            "uses one group for two of level, message and source",
        ),
        ("[formats.a]\n" + GOOD + "time = 'unix'", 3, "'unix' is not known; use auto, iso, epoch"),
        ("[formats.a]\n" + GOOD + "time = '%Y-%Q'", 3, "formats.a.time: %Q is not known; use one of %A"),
        ("[formats.a]\n" + GOOD + "zone = 'Mars'", 3, "'Mars' is not a time zone; use an IANA name"),
        ("[formats.a]\n" + GOOD + "levels = { E = 'LOUD' }", 3, "'LOUD' is not a level; use one of DEBUG"),
        ("[formats.a]\n" + GOOD + "levels = { E = 1 }", 3, "expected a string of E; write it in quotes"),
        ("[formats.a]\n" + GOOD + "files = 'a'", 3, "formats.a.files: expected a list of strings"),
        ("[formats.a]\n" + GOOD + "files = ['a/b']", 3, "'a/b' is a relative path; write an absolute one"),
        ("[formats.a]\n" + GOOD + "files = ['[z-a]']", 3, "'[z-a]' is not a glob; check its brackets"),
        ("[formats.a]\n" + GOOD + "start = '.*'", 3, "formats.a.start: matches an empty line"),
        ("[formats.a]\npattern = '(?P<message>.+)'\ntime = 'iso'", 3, "no group 'time'; write (?P<time>...)"),
        ("[formats.a]\npattern = '(?P<message>.+)'\nzone = 'UTC'", 3, "no group 'time'; write (?P<time>...)"),
        ("[formats.a]\npattern = '(?P<message>.+)'\nlevels = { E = 'ERROR' }", 3, "no group 'level'"),
        ("# nothing", 0, "has no format; write a table [formats.NAME] with a pattern"),
        ("[formats]\n" + "\n".join(f"a{n} = {{ pattern = '(?P<x>.)' }}" for n in range(51)), 1, "at most 50"),
        ("[formats.a", 0, "not valid TOML"),
    ],
)
def test_an_error_names_file_line_key_and_what_to_do(
    path: Path, body: str, line: int, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """``ship`` and ``check`` say the same of an invalid file, which no program uses."""
    path.write_text(body)
    with pytest.raises(ConfigurationError) as caught:
        load_formats(path)
    assert expected in str(caught.value)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")
    assert main(["ship", "x.log", "--format-file", str(path)]) == 2
    assert capsys.readouterr().err == f"tickertape ship: {caught.value}\n"
    assert main(["check", "--shipper-format-file", str(path)]) == 1
    assert expected in capsys.readouterr().out


def test_all_problems_are_reported(path: Path) -> None:
    """``ship`` reports the first problem and the number of others, which ``check`` lists."""
    path.write_text("[formats.a]\npattern = '('\n[formats.b]\nx = 1\ny = 1\n")
    with pytest.raises(FormatFileError, match=r"formats\.a\.pattern.*and 2 more; 'tickertape check"):
        load_formats(path)
    assert [finding.state for finding in check_format_file(path)] == ["error"] * 3


def test_a_file_that_cannot_be_read_is_named(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A missing file ends the program before anything is shipped."""
    assert main(["ship", "x.log", "--format-file", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"tickertape ship: format file {path} cannot be read: No such file or directory;"
        " check --format-file\n"
    )


def test_a_valid_file_is_ok(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``check`` lists the formats of a valid file, without NATS."""
    path.write_text(f"[formats.one]\n{GOOD}[formats.two]\n{GOOD}")
    assert main(["check", "--shipper-format-file", str(path)]) == 0
    assert "2 formats: one, two" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("globs", "log", "applies"),
    [
        ([], "/var/log/a.log", True),
        ([], "-", True),
        (["a.log"], "/var/log/a.log", True),
        (["*.log"], "/var/log/x/a.log", True),
        (["*.log"], "-", False),
        (["-"], "-", True),
        (["/var/log/*.log"], "/var/log/a.log", True),
        (["/var/log/*.log"], "/var/log/x/a.log", False),
        (["/var/**/*.log"], "/var/log/x/a.log", True),
        (["b*", "/var/log/a.log"], "/var/log/a.log", True),
        (["b*"], "/var/log/a.log", False),
        (["a.log"], "/var/log/a.log.1", True),
        (["/var/log/a.log"], "/var/log/a-2026-01-31.log", True),
        (["a.log.2"], "/var/log/a.log.1", False),
    ],
)
def test_a_format_applies_to_its_files(path: Path, globs: list[str], log: str, applies: bool) -> None:
    """A glob with a slash is that of the path, and one without that of the name."""
    path.write_text(f"[formats.one]\n{GOOD}files = {globs}")
    settings = ShipSettings(paths=["x.log"], format_file=path)
    assert bool(settings.parse_settings(log).own_formats) is applies
    assert bool(select_formats(load_formats(path), log)) is applies
