"""Each command and each block of the documents is run, or read, by a test."""

import re
from pathlib import Path

import pytest

from tests.support.documents import handlers
from tests.support.documents.markdown import (
    PROGRAMS,
    SHELL,
    Command,
    blocks,
    commands,
    configurations,
    documents,
)
from tests.support.paths import ROOT

EXAMPLES = {
    ("README.md", "python"): "tests/integration/sdk/test_readme_sdk.py",
    ("README.md", "js"): "tests/e2e/test_readme_typescript.py",
    ("README.md", "toml"): "tests/unit/cli/test_config.py",
    ("README.md", "ts"): "tests/e2e/test_readme_typescript.py",
    ("README.md", "tsx"): "tests/e2e/test_readme_typescript.py",
    ("docs/http-streams.md", "js"): "tests/e2e/test_event_source.py",
    ("docs/sources/syslog.md", "text"): "tests/integration/shipper/test_syslog.py",
    ("docs/log-formats.md", "text"): "tests/unit/producers/shipper/format_file/test_page.py",
    **{
        (name, language): "tests/unit/producers/shipper/parsing/test_source_pages.py"
        for name in documents()
        if name.startswith("docs/sources/")
        for language in ("log", "jsonl")
    },
}
"""Languages of examples, and the test that runs them."""


@pytest.mark.parametrize("document", documents())
def test_each_block_has_a_test(document: str) -> None:
    """A block is of commands, of configuration that a program reads, or an example that a test runs."""
    unread = [
        f"{document}:{block.line}: {block.language}"
        for block in blocks(document)
        if block.language not in SHELL
        and (document, block.language) not in EXAMPLES
        and not any(re.search(key, block.text, re.MULTILINE) for key in handlers.READERS)
    ]
    assert unread == []


@pytest.mark.parametrize("document", [*documents(), *configurations()])
def test_each_command_has_a_test(document: str) -> None:
    """A command is run by the tests of the documents, or by one that the list names."""
    unknown = [
        str(command)
        for command in commands(document)
        if not handlers.is_covered(command) and command.program not in handlers.HANDLERS
    ]
    assert unknown == []


def test_the_lists_are_short_and_true() -> None:
    """Each listed command is in a document, and each listed test exists."""
    found = [command for name in (*documents(), *configurations()) for command in commands(name)]
    assert {command.text for command in found} >= handlers.COVERED.keys()
    assert {(command.document, command.section) for command in found} >= handlers.COVERED_SECTIONS.keys()
    assert {command.program for command in found} <= {*PROGRAMS, "set"}
    tests = {*handlers.COVERED.values(), *handlers.COVERED_SECTIONS.values(), *EXAMPLES.values()}
    assert [test for test in tests if not (ROOT / test).is_file()] == []
    assert len(handlers.COVERED) <= 10


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of a document."""
    monkeypatch.setattr("tests.support.documents.markdown.ROOT", tmp_path)
    return tmp_path / "page.md"


def test_commands_are_found_wherever_they_are(page: Path) -> None:
    """A command is found in a block, in an indented block, and in the text, also across lines."""
    page.write_text(
        "# Page\n\nRun `tickertape\nstreams show` or `make`.\n\n    make demo    # a comment\n\n"
        "## Next\n\n```sh\n"
        'tickertape publish log.info.x \\\n  \'{"message":\n "#1"}\'  # two lines\n\nnew-tool --now\n```\n'
    )
    assert commands("page.md") == [
        Command("page.md", 3, "Page", "tickertape streams show"),
        Command("page.md", 6, "Page", "make demo"),
        Command("page.md", 11, "Next", 'tickertape publish log.info.x   \'{"message":\n "#1"}\''),
        Command("page.md", 15, "Next", "new-tool --now"),
    ]
    assert commands("page.md")[-1].program not in handlers.HANDLERS


def test_commands_are_found_in_comments(page: Path) -> None:
    """A command is found in an indented comment, also with variables and continuation lines."""
    page.with_suffix(".conf").write_text(
        "# Run it as nats-server -c this, then:\n#\n#   A1=x nats-server \\\n#     -c page.conf   # now\n"
        "listen: 1  #   tickertape serve\n"
    )
    assert commands("page.conf") == [Command("page.conf", 3, "", "A1=x nats-server -c page.conf")]
