"""Every exception of Tickertape is in one tree, has a text, and can be sent between processes."""

import ast
import errno
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import Rejection, RejectionReason
from tickertape.producers.monitor.config.problems import Problem
from tickertape.producers.shipper.sinks.sink import Checkpoint, StoredCheckpoint
from tickertape.relay.core.connection_limits import Limit

import tickertape
from tests.support.paths import ROOT
from tickertape.errors import ConfigurationError, OperatorError, TickertapeError
from tickertape.nats.connect_errors import ConnectFailure, unreachable
from tickertape.nats.errors import PermissionDenied

PACKAGES = ("tickertape", "tickertape.contracts", "tickertape.producers", "tickertape.relay")
FOLDERS = ("contracts", "producers", "relay", "tickertape")

SAMPLES: dict[Any, Any] = {
    int: 7,
    bytes: b"plain",
    int | None: 7,
    OSError: OSError(errno.EMFILE, "too many"),
    Path: Path("/a/file"),
    ErrorCode: ErrorCode.INTERNAL,
    Limit: Limit.HEAD_TIME,
    Rejection: Rejection(RejectionReason.BAD_JSON, "not JSON"),
    PermissionDenied: PermissionDenied("publish", "log.info.x", "NATS user 'x'"),
    ConnectFailure: unreachable("nats://h", "timed out"),
    StoredCheckpoint: StoredCheckpoint(Checkpoint("/a/file", run="r"), 7),
    list[ConfigurationError]: [ConfigurationError("a key is unknown", "remove it")],
    list[Problem]: [Problem(Path("/a/file"), 7, "gateways", "is empty", "add one")],
}
"""An argument for each constructor parameter type other than text."""

SEARCHES = ("startswith", "endswith", "find", "index", "split", "partition", "rpartition", "search", "match")
TEXTS = ("message", "hint", "reason", "strerror", "args")


@cache
def modules() -> tuple[ModuleType, ...]:
    """Import all modules of the package except programs."""
    names = [
        found.name
        for package in PACKAGES
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
        if not found.name.endswith(".__main__")
    ]
    return tuple(importlib.import_module(name) for name in names)


def exceptions() -> list[type[BaseException]]:
    """Return the exception classes that these modules define."""
    return [
        value
        for module in modules()
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value.__module__ == module.__name__
    ]


def sample(kind: type[BaseException]) -> tuple[BaseException, list[str]]:
    """Construct an exception; return it with the texts passed to its constructor."""
    if not inspect.isfunction(kind.__init__):
        return kind("the text"), ["the text"]
    hints = get_type_hints(kind.__init__)
    values = []
    for name, parameter in inspect.signature(kind).parameters.items():
        if parameter.default is not parameter.empty:
            continue
        if hints[name] is str:
            values.append(f"the {name}")
        elif get_origin(hints[name]) is Literal:
            values.append(get_args(hints[name])[0])
        else:
            values.append(SAMPLES[hints[name]])
    return kind(*values), [text for text in values if isinstance(text, str) and text.startswith("the ")]


def test_all_are_in_the_tree() -> None:
    """``except TickertapeError`` catches every exception; control-flow exceptions are private to their
    module.
    """
    found = exceptions()
    assert len(found) > 25
    outside = {kind for kind in found if not issubclass(kind, TickertapeError)}
    assert {kind.__qualname__ for kind in outside if not kind.__name__.startswith("_")} == set()
    for module in modules():
        for name in {kind.__name__ for kind in outside if kind.__module__ != module.__name__}:
            assert name not in vars(module), f"{module.__name__} uses {name}"


def test_all_have_a_text_and_can_be_pickled() -> None:
    """The text is a single line that contains the constructor's arguments."""
    for kind in exceptions():
        if not issubclass(kind, TickertapeError):
            continue
        error, texts = sample(kind)
        assert str(error), kind
        assert "\n" not in str(error), kind
        assert [text for text in texts if text not in str(error)] == [], kind
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert (str(copy), copy.args) == (str(error), error.args), kind
        assert repr(vars(copy)) == repr(vars(error)), kind


def test_those_for_an_operator_have_a_message_and_a_hint() -> None:
    """Every command can print an operator error in the same way."""
    for kind in exceptions():
        if issubclass(kind, OperatorError):
            error, _ = sample(kind)
            assert isinstance(error, OperatorError)
            assert error.message
            assert error.hint
            assert str(error) == f"{error.message}; {error.hint}"


def test_the_public_ones_are_public_names() -> None:
    """The exceptions that a publishing program may need to catch are public."""
    public = {name for name in tickertape.__all__ if name.endswith("Error")}
    assert public >= {
        "TickertapeError",
        "OperatorError",
        "ConfigurationError",
        "ConnectError",
        "PublishError",
    }
    for name in tickertape.__all__:
        value = getattr(tickertape, name)
        if isinstance(value, type) and issubclass(value, BaseException):
            assert issubclass(value, TickertapeError)
    assert issubclass(tickertape.AccessError, ConfigurationError)


def searched_texts(tree: ast.Module) -> set[int]:
    """Return the lines that search for words in the text of an exception."""
    functions = [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    return {line for function in functions for line in _searched_in(function)}


def _searched_in(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[int]:
    nodes = list(ast.walk(function))
    errors = {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    errors |= {node.arg for node in nodes if isinstance(node, ast.arg) and _is_error(node.annotation)}
    errors |= {
        node.target.id
        for node in nodes
        if isinstance(node, ast.NamedExpr) and ast.unparse(node.value).endswith("last_error")
    }
    texts: set[str] = set()
    for node in nodes:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.NamedExpr(target=ast.Name(id=name)):
                if _holds_text(node.value, errors, texts):
                    texts.add(name)
    for node in nodes:
        within: list[ast.expr] = []
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.In, ast.NotIn)):
            within = node.comparators
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            within = [node.func.value, *node.args] if node.func.attr in SEARCHES else []
        if isinstance(node, ast.expr) and any(_holds_text(one, errors, texts) for one in within):
            yield node.lineno


def _is_error(annotation: ast.expr | None) -> bool:
    words = "" if annotation is None else ast.unparse(annotation)
    return any(one.strip().endswith(("Error", "Exception")) for one in words.split("|"))


def _holds_text(node: ast.expr, errors: set[str], texts: set[str]) -> bool:
    for inner in ast.walk(node):
        match inner:
            case ast.Call(func=ast.Name(id="str" | "repr"), args=[ast.Name(id=name)]) if name in errors:
                return True
            case ast.Attribute(value=ast.Name(id=name), attr=attribute) if name in errors:
                return attribute in TEXTS
            case ast.Name(id=name) if name in texts:
                return True
    return False


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_decision_depends_on_the_text_of_an_error(folder: str) -> None:
    """Decisions use a type, code or kind; only ``server_error`` parses text, because NATS sends nothing
    else.
    """
    for path in sorted((ROOT / folder).rglob("*.py")):
        if "node_modules" not in path.parts:
            lines = searched_texts(ast.parse(path.read_text()))
            assert lines == set(), path.relative_to(ROOT)


@pytest.mark.parametrize(
    "line",
    [
        "if 'x' in str(error): pass",
        "if 'x' not in str(error).lower(): pass",
        "if str(error).startswith('x'): pass",
        "if error.message.endswith('x'): pass",
        "if re.search('x', str(error)): pass",
        "a, _, b = str(error).rpartition('; ')",
        "if 'x' in (text := str(error).lower()): pass",
        "text = str(error); found = any(word in text for word in WORDS)",
    ],
)
def test_a_text_search_is_detected(line: str) -> None:
    """The test above detects what it forbids."""
    for head in (
        "def f():\n try: g()\n except OSError as error:\n",
        "def f(error: Exception | str):\n if 1:\n",
    ):
        assert len(searched_texts(ast.parse(f"{head}  {line}"))) == 1
        assert searched_texts(ast.parse(f"{head}  print(str(error))")) == set()
