"""Texts that people read in this repository: docstrings, comments, errors, log messages, help and documents.

``python -m tests.support.texts --seed 7`` prints a random sample of them, to be read by a person.
"""

import argparse
import ast
import io
import random
import subprocess
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal, get_args

from tests.support.paths import ROOT

Kind = Literal[
    "module docstring",
    "class docstring",
    "function docstring",
    "property docstring",
    "test docstring",
    "attribute docstring",
    "comment",
    "error",
    "log message",
    "help",
    "string",
    "document",
]

PROGRAM_FOLDERS: Final = ("tickertape", "contracts", "relay", "producers")
"""Folders whose strings reach a user; strings of tests are data."""

SAMPLE: Final[dict[str, tuple[tuple[Kind, ...], int]]] = {
    "docstrings": (("module docstring", "class docstring", "function docstring", "test docstring"), 20),
    "errors": (("error",), 10),
    "log messages": (("log message",), 10),
    "help texts": (("help",), 10),
}
"""What a sample consists of, and how many of each."""

_DOCUMENTS: Final = (
    ".md", ".yaml", ".yml", ".conf", ".cfg", ".toml", ".service", ".sh", ".tpl", ".ts", ".tsx", ".js", ".css",
    ".html",
)  # fmt: skip
_NOT_OURS: Final = ("/vendor/", "/dist/", "/built/", "package-lock.json")
_LOG_METHODS: Final = frozenset({"debug", "info", "warning", "error", "exception", "critical"})
_PROPERTIES: Final = frozenset({"property", "cached_property", "setter"})


@dataclass(frozen=True, slots=True)
class Text:
    """One text and its location.

    Attributes:
        kind: of what it is a text.
        path: file, relative to the root.
        line: its first line, from 1.
        text: the text; placeholders of f-strings are written ``{}``.
    """

    kind: Kind
    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def all_texts() -> Iterator[Text]:
    """Yield every text of the files that git tracks."""
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    for path in tracked.stdout.splitlines():
        file = ROOT / path
        if any(part in f"/{path}" for part in _NOT_OURS) or not file.is_file():
            continue
        if path.endswith(".py"):
            yield from python_texts(path, file.read_text())
        elif path.endswith(_DOCUMENTS) or file.name in ("Makefile", "Dockerfile", "run"):
            yield from document_texts(path, file.read_text())


def document_texts(path: str, source: str) -> Iterator[Text]:
    """Yield the paragraphs of a document, or the lines of a configuration file.

    A phrase may be split by a line break, so the lines of a paragraph are joined.
    """
    start, lines = 1, list[str]()
    for number, line in enumerate([*source.splitlines(), ""], 1):
        if line.strip():
            if not lines:
                start = number
            lines.append(line.strip())
        elif lines:
            yield Text("document", path, start, " ".join(lines))
            lines = []


def python_texts(path: str, source: str) -> Iterator[Text]:
    """Yield the texts of a module: its docstrings, comments and, in a program, its strings."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield Text("comment", path, token.start[0], token.string.lstrip("# "))
    visitor = _Visitor(path)
    visitor.visit(ast.parse(source))
    for text in visitor.found:
        if text.kind not in ("string", "error", "log message") or path.startswith(PROGRAM_FOLDERS):
            yield text


class _Visitor(ast.NodeVisitor):
    def __init__(self, path: str) -> None:
        self.found: list[Text] = []
        self._path = path
        self._kind: Kind = "string"
        self._settings = False

    def visit_Module(self, node: ast.Module) -> None:
        self._body(node.body, "module docstring")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        outer = self._settings
        self._settings = node.name.endswith("Settings")
        self._body(node.body, "class docstring")
        self._settings = outer
        self._expressions(node.decorator_list)

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        kind: Kind = "function docstring"
        if any(_last_name(decorator) in _PROPERTIES for decorator in node.decorator_list):
            kind = "property docstring"
        elif node.name.startswith("test_"):
            kind = "test docstring"
        self._body(node.body, kind)
        self._expressions([node.args, *node.decorator_list])

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Raise(self, node: ast.Raise) -> None:
        self._within("error", node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _last_name(node)
        if (
            isinstance(node.func, ast.Attribute)
            and name in _LOG_METHODS
            and _last_name(node.func.value) == "log"
        ):
            self._within("log message", node)
        elif name.endswith(("Error", "Invalid")):
            self._within("error", node)
        else:
            self.generic_visit(node)

    def visit_keyword(self, node: ast.keyword) -> None:
        if self._settings and node.arg == "description":
            self._within("help", node)
        else:
            self.generic_visit(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        self._add(self._kind, node, "".join(map(str, parts)))
        for part in node.values:
            if isinstance(part, ast.FormattedValue):
                self.visit(part.value)

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self._add(self._kind, node, node.value)

    def _body(self, body: list[ast.stmt], kind: Kind) -> None:
        for position, statement in enumerate(body):
            if not (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
                self.visit(statement)
                continue
            below: Kind = "help" if self._settings else "attribute docstring"
            self._add(kind if position == 0 else below, statement, str(statement.value.value))

    def _expressions(self, nodes: list[ast.AST] | list[ast.expr]) -> None:
        for node in nodes:
            self.visit(node)

    def _within(self, kind: Kind, node: ast.AST) -> None:
        outer, self._kind = self._kind, kind
        self.generic_visit(node)
        self._kind = outer

    def _add(self, kind: Kind, node: ast.AST, text: str) -> None:
        if text.strip():
            self.found.append(Text(kind, self._path, getattr(node, "lineno", 1), " ".join(text.split())))


def _last_name(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _last_name(node.func)
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def sample(seed: int, texts: Iterable[Text]) -> dict[str, list[Text]]:
    """Draw texts at random; the same seed draws the same from the same texts."""
    chance = random.Random(seed)
    found = [text for text in texts if " " in text.text]
    return {
        heading: chance.sample([text for text in found if text.kind in kinds], count)
        for heading, (kinds, count) in SAMPLE.items()
    }


def main() -> None:
    """Print a sample."""
    parser = argparse.ArgumentParser(description="Print a random sample of the texts that people read.")
    parser.add_argument("--seed", type=int, default=1, help="number that determines the sample")
    parser.add_argument("--kind", choices=get_args(Kind), help="print every text of one kind instead")
    options = parser.parse_args()
    if options.kind is not None:
        for text in all_texts():
            if text.kind == options.kind:
                print(str(text).encode(errors="backslashreplace").decode())
        return
    for heading, texts in sample(options.seed, all_texts()).items():
        print(f"{heading}\n")
        for text in texts:
            print(f"  {text}")
        print()


if __name__ == "__main__":
    main()


__all__ = ["Kind", "Text", "all_texts", "document_texts", "python_texts", "sample"]
