"""Blocks and commands of the documents and of the comments in ``deploy/``, as a reader copies them."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from tests.support.paths import ROOT

PROGRAMS: Final = (
    "amtool", "cp", "curl", "docker", "export", "haproxy", "helm", "kubectl", "make", "mkdir", "nats",
    "nats-server", "pip", "prometheus", "prometheus-alertmanager", "promtool", "sed", "sh", "systemctl",
    "systemd-analyze", "tickertape", "ulimit", "umask", "websocat",
)  # fmt: skip
"""First words that make a code span, or a line of a comment, a command."""

SHELL: Final = ("sh", "bash", "shell", "console")
"""Languages of blocks of commands."""

_NOT_DOCUMENTS: Final = ("CHANGELOG.md", "tests/", "contracts/typescript/")
_NOT_CONFIGURATIONS: Final = (".md", ".json", ".py", "requirements.txt")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block.

    Attributes:
        document: path from the root.
        line: line of its fence, from 1.
        section: heading above it.
        language: language of the fence.
        text: its lines.
    """

    document: str
    line: int
    section: str
    language: str
    text: str


@dataclass(frozen=True, slots=True)
class Command:
    """A command.

    Attributes:
        document: path from the root.
        line: its first line, from 1.
        section: heading above it; empty in a comment.
        text: its text, without a trailing comment; lines that end with a backslash are joined.
    """

    document: str
    line: int
    section: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}: {self.text}"

    @property
    def program(self) -> str:
        """Its first word that is not the assignment of a variable."""
        return next((word for word in self.words if "=" not in word or word.startswith("-")), "")

    @property
    def words(self) -> list[str]:
        """Its words, without quotes."""
        return shlex.split(self.text)


def documents() -> list[str]:
    """Return the documents whose commands are tested."""
    return [name for name in _tracked() if name.endswith(".md") and not name.startswith(_NOT_DOCUMENTS)]


def configurations() -> list[str]:
    """Return the files of ``deploy/`` whose comments may contain commands."""
    return [
        name for name in _tracked() if name.startswith("deploy/") and not name.endswith(_NOT_CONFIGURATIONS)
    ]


def blocks(document: str) -> list[Block]:
    """Return the fenced blocks of a document."""
    return [block for block in _parts(document) if isinstance(block, Block)]


def commands(document: str) -> list[Command]:
    """Return the commands of a document, in blocks and in its text, in their order."""
    if not document.endswith(".md"):
        return list(_in_comments(document))
    found = list[Command]()
    for part in _parts(document):
        if isinstance(part, Command):
            found.append(part)
        elif part.language in SHELL:
            found += _lines(document, part.line + 1, part.section, part.text)
    return found


@cache
def _tracked() -> list[str]:
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return sorted(name for name in set(done.stdout.splitlines()) if (ROOT / name).is_file())


def _parts(document: str) -> Iterator[Block | Command]:
    """Yield the blocks of a document, and the commands outside of them."""
    section, fence, start = "", "", 0
    text, plain, plain_start = list[str](), list[str](), 1
    for number, line in enumerate([*(ROOT / document).read_text().splitlines(), "# end"], 1):
        if fence:
            if line.strip() != "```":
                text.append(line)
                continue
            yield Block(document, start, section, fence, "\n".join(text) + "\n")
            fence, text, plain_start = "", [], number + 1
        elif line.startswith(("```", "#")):
            yield from _in_prose(document, plain_start, section, "\n".join(plain))
            plain, plain_start = [], number + 1
            if line.startswith("```"):
                fence, start = line[3:].strip() or "text", number
            else:
                section = line.lstrip("# ")
                yield from _in_prose(document, number, section, line)
        else:
            plain.append(line)


def _in_prose(document: str, start: int, section: str, text: str) -> Iterator[Command]:
    pattern = re.compile(r"^(?: {4}\S.*(?:\n|\Z))+|(?<!`)`([^`]+)`(?!`)", re.MULTILINE)
    for found in pattern.finditer(text):
        line = start + text.count("\n", 0, found.start())
        if found[1] is None:
            yield from _lines(document, line, section, re.sub("^    ", "", found[0], flags=re.MULTILINE))
        elif _is_command(span := " ".join(found[1].split())):
            yield Command(document, line, section, span)


def _is_command(text: str) -> bool:
    first, _, rest = text.partition(" ")
    return first in PROGRAMS and bool(rest)


def _lines(document: str, start: int, section: str, text: str) -> Iterator[Command]:
    """Yield the commands of a block; one continues after a backslash, and while a quote is open."""
    held, begun = "", start
    for number, line in enumerate(text.splitlines(), start):
        begun = begun if held else number
        held = _without_comment(held + line) + "\n"
        if held.endswith("\\\n"):
            held = held[:-2].rstrip() + " "
            continue
        try:
            words = shlex.split(held)
        except ValueError:
            continue  # a quote is open
        if words:
            yield Command(document, begun, section, held.strip())
        held = ""
    assert not held.strip(), f"{document}:{begun}: an incomplete command"


def _without_comment(text: str) -> str:
    """Return a text without the comment that ends it; a ``#`` in quotes is none."""
    quote = ""
    for position, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (position == 0 or text[position - 1].isspace()):
            return text[:position].rstrip()
    return text.rstrip(" ")


def _in_comments(path: str) -> Iterator[Command]:
    """Yield the commands in the indented comments of a configuration file."""
    lines = (ROOT / path).read_text().splitlines()
    number = 0
    while number < len(lines):
        start, text = number, ""
        while number < len(lines) and (found := re.match(r"^\s*#(?: {3,}|\t)(\S.*)$", lines[number])):
            text += found[1].rstrip() + "\n"
            number += 1
            if not text.endswith("\\\n"):
                break
        words = [word for word in text.split() if not re.match(r"[A-Z][A-Z0-9_]*=", word)]
        if words and _is_command(" ".join(words)):
            yield from _lines(path, start + 1, "", text)
        number = max(number, start + 1)


__all__ = ["PROGRAMS", "SHELL", "Block", "Command", "blocks", "commands", "configurations", "documents"]
