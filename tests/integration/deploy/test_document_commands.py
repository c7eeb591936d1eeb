"""Every command of the documents, run by an operator with the shipped configurations, in order."""

from pathlib import Path

import pytest

from tests.support.documents import handlers
from tests.support.documents.markdown import Command, blocks, commands, configurations, documents
from tests.support.documents.operator_desk import desk

PAGES = [name for name in documents() if commands(name) or blocks(name)]
IN_COMMENTS = [name for name in configurations() if commands(name)]
CONFIGURATION = ("json", "toml", "yaml")
"""Languages of blocks that a program reads."""


def distinct(found: list[Command]) -> list[Command]:
    """Return commands without later ones of the same text."""
    return list({command.text: command for command in reversed(found)}.values())[::-1]


def failures(folder: Path, names: list[str]) -> list[str]:
    """Run the commands of documents at one desk; return what failed."""
    failed = []
    with desk(folder) as operator:
        operator.write(blocks("README.md"))  # the gateways that commands of all documents name
        for name in names:
            page = blocks(name) if name.endswith(".md") else []
            operator.write(page)
            for block in page:
                if block.language in CONFIGURATION:
                    failed += attempt(lambda block=block: handlers.check_block(operator, block))
            for command in distinct(commands(name)):
                failed += attempt(lambda command=command: handlers.run(operator, command))
        failed += operator.violations
    return failed


def attempt(action: "object") -> list[str]:
    """Return the error of an action, if there is one."""
    assert callable(action)
    try:
        action()
    except AssertionError as error:
        return [str(error)]
    return []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_document_works(page: str, tmp_path: Path) -> None:
    """Each command and each block of configuration of a document works, in the order of the page."""
    found = failures(tmp_path, [page])
    assert not found, "\n".join(found)


def test_every_command_in_a_comment_works(tmp_path: Path) -> None:
    """Each command in the comments of the shipped configurations works."""
    found = failures(tmp_path, IN_COMMENTS)
    assert not found, "\n".join(found)
