"""Broken files of a monitor: each message has the file, the line, the field, what is wrong and what to do."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.problems import MonitorFileError, Problem
from tickertape.producers.monitor.config.validate import check
from tickertape.producers.monitor.config.yaml_file import MAX_FILE_BYTES

from tests.support.paths import ROOT

TABLES = ROOT / "tests" / "support" / "broken_gateways"
FOREIGN = re.compile(
    r"pydantic|yaml\.|[Ii]nput should|[Vv]alue error|[Ee]xtra inputs|[Ff]ield required|\[type="
    r"|found character|expected <|could not|[Ww]hile (pars|scann)ing|in \"<|constructor|block end|unhashable"
    r"|valid (string|integer|number|list|dictionary|boolean)|month must|\bNone\b|\bTrue\b|\bFalse\b"
    r"|Traceback|Errno|codec"
)
"""Words of Pydantic, of the YAML parser and of Python."""


@dataclass(frozen=True)
class Broken:
    """Broken file, and the problem to report: parts of its message and of its hint."""

    name: str
    line: int
    field: str
    message: str
    hint: str
    data: bytes


def read_table(name: str) -> list[Broken]:
    """Read a table, in which a line ``=== name | line | field | message | hint`` precedes each file.

    An arrow in a file is a tab.
    """
    found = []
    for block in (TABLES / f"{name}.txt").read_text(encoding="utf-8").split("=== ")[1:]:
        head, _, text = block.partition("\n")
        title, line, field, message, hint = (part.strip() for part in head.split(" | "))
        text = text.removesuffix("\n").replace("→", "\t")
        found.append(Broken(title, int(line), field, message, hint, text.encode()))
    return found


BLOCK = 'gateways:\n  - id: a\n    type: bö\n    probes: [{kind: tcp, address: "h:1"}]\n'
BOMB = "x-a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"x-{chr(97 + n)}: &{chr(97 + n)} [{', '.join([f'*{chr(96 + n)}'] * 10)}]" for n in range(1, 9)
)
LONG = "9" * 5_000
DATA = [
    Broken("empty", 1, "gateways", "the file is empty", "add a list", b""),
    Broken("only a comment", 1, "gateways", "the file is empty", "add a list", b"# nothing\n"),
    Broken("only a mark of UTF-8", 1, "gateways", "the file is empty", "add a list", b"\xef\xbb\xbf"),
    Broken("only a document mark", 1, "gateways", "the file is empty", "add a list", b"---\n"),
    Broken("binary", 1, "", "control character U+007F", "UTF-8", b"\x7fELF\x02\x01\x01\x00"),
    Broken("NUL", 3, "", "U+0000", "remove it", BLOCK.replace("ö", "\0").encode()),
    Broken("escape", 3, "", "U+001B", "remove it", BLOCK.replace("ö", "\x1b[0m").encode()),
    Broken("Latin-1", 3, "", "not UTF-8", "save the file", BLOCK.encode("latin-1")),
    Broken("GBK", 3, "", "not UTF-8", "save the file", BLOCK.replace("ö", "上海").encode("gbk")),
    Broken("UTF-16 without a mark", 1, "", "U+0000", "UTF-8", BLOCK.replace("ö", "o").encode("utf-16-le")),
    Broken("UTF-16 with an odd end", 1, "", "not UTF-16", "save the file as UTF-8", b"\xff\xfea\x00b"),
    Broken("compressed", 1, "", "not UTF-8", "save the file as UTF-8", b"\x1f\x8b\x08\x00\x00\x00\x00\x00"),
    Broken("too large", 0, "", f"larger than {MAX_FILE_BYTES}", "split it", b"#" * (MAX_FILE_BYTES + 1)),
    Broken("very deep", 1, "", "nested too deeply", "at most 50 levels", b"gateways: " + b"[" * 2_000),
    Broken("deep", 1, "", "nested too deeply", "at most 50", b"gateways: " + b"[" * 60 + b"]" * 60),
    Broken("alias bomb", 2, "", "expand to more than", "fewer aliases", f"{BOMB}\n{BLOCK}".encode()),
    Broken("alias within itself", 1, "", "expand to more than", "fewer aliases", b"gateways: &a [*a]\n"),
    Broken("long number", 3, "gateways[0].type", "its form", "shorten", BLOCK.replace("bö", LONG).encode()),
    Broken(
        "long port",
        4,
        "gateways[0].probes[0].address",
        "out of range",
        "1 to 65535",
        BLOCK.replace("h:1", f"h:{LONG}").encode(),
    ),
]
"""Files that are not text, that are too large, or that are generated."""

LOADED = [*(broken for name in ("syntax", "types", "keys", "values") for broken in read_table(name)), *DATA]


def problems_of(path: Path) -> list[Problem]:
    """Return the problems with which a file is rejected."""
    with pytest.raises(MonitorFileError) as caught:
        load(path)
    return caught.value.problems


def verify(problems: list[Problem], broken: Broken) -> None:
    """Check that one problem is the expected one, and that an operator can act on all of them."""
    for problem in problems:
        assert problem.message
        assert problem.hint
        assert not FOREIGN.search(f"{problem.message}; {problem.hint}"), problem
        assert len(f"{problem.message}{problem.hint}") < 400
        assert "s3cret" not in str(problem)
        assert f"{problem.message}{problem.hint}".isprintable()
    found = [problem for problem in problems if (problem.line, problem.field) == (broken.line, broken.field)]
    assert found, [str(problem) for problem in problems]
    assert broken.message in found[0].message
    assert broken.hint in found[0].hint


@pytest.mark.parametrize("broken", LOADED, ids=lambda broken: broken.name)
def test_a_broken_file_has_a_message_to_act_on(broken: Broken, tmp_path: Path) -> None:
    """The message has the line and the field, what is wrong, and what to do, in words of this project."""
    path = tmp_path / "gateways.yaml"
    path.write_bytes(broken.data)
    problems = problems_of(path)
    verify(problems, broken)
    assert check(path) == problems


@pytest.mark.parametrize("broken", read_table("machine"), ids=lambda broken: broken.name)
def test_what_this_machine_lacks_is_found_by_check(broken: Broken, tmp_path: Path) -> None:
    """A file that can be loaded, but whose probe or recovery cannot work on this machine."""
    path = tmp_path / "gateways.yaml"
    path.write_bytes(broken.data)
    load(path)
    (problem,) = check(path)
    verify([problem], broken)


def test_the_tables_have_enough_files() -> None:
    """Every name occurs once, so that a failure names its file."""
    names = [broken.name for broken in LOADED]
    assert len(names) == len(set(names)) > 140


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("missing.yaml", "does not exist", "working directory"),
        ("folder", "is a folder", "path of a file"),
        ("loop", "cannot be read: ", "check the path"),
        ("a\0b", "cannot be read: ", "check the path"),
        ("x" * 300, "cannot be read: ", "check the path"),
        ("secret", "may not be read by this user", "let the user"),
    ],
)
def test_a_path_without_a_file_is_reported(name: str, message: str, hint: str, tmp_path: Path) -> None:
    """A path of a folder, of a link to itself, or of a file of another user."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "secret").write_text(BLOCK)
    (tmp_path / "secret").chmod(0)
    path = tmp_path / name
    if name == "secret" and os.access(path, os.R_OK):
        path = Path("/proc/self/mem")  # root may read any file of a disk
        message, hint = "cannot be read: ", "check the path"
    (problem,) = problems_of(path)
    verify([problem], Broken(name, 0, "", message, hint, b""))


VALID = {
    **{valid.name: valid.data for valid in read_table("valid")},
    "UTF-8 with a mark": b"\xef\xbb\xbf" + BLOCK.encode(),
    "UTF-16 with a mark": BLOCK.encode("utf-16"),
    "Windows": BLOCK.replace("\n", "\r\n").encode(),
}


@pytest.mark.parametrize("data", VALID.values(), ids=VALID.keys())
def test_unusual_files_are_valid(data: bytes, tmp_path: Path) -> None:
    """What YAML allows and operators write is not rejected with the mistakes."""
    path = tmp_path / "gateways.yaml"
    path.write_bytes(data)
    (gateway,) = load(path).gateways
    assert getattr(gateway.probes[0], "headers", {"x-key": "k"}) == {"x-key": "k"}


def test_the_line_of_a_merged_setting_is_where_it_is_written(tmp_path: Path) -> None:
    """A problem in an anchor has the line of the anchor; a value beside the merge has its own line."""
    path = tmp_path / "gateways.yaml"
    probe = "[{kind: tcp, address: 'h:1'}]"
    path.write_text(
        f"x-d: &d\n  type: b\n  interval: 5\n  probes: {probe}\n"
        "gateways:\n  - <<: *d\n    id: a\n  - <<: *d\n    id: c\n    interval: 6\n"
    )
    assert [(problem.line, problem.field) for problem in problems_of(path)] == [
        (3, "gateways[0].interval"),
        (10, "gateways[1].interval"),
    ]
