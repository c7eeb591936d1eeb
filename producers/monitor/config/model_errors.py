"""Sentences for settings that the models reject, each with its line, its field and what to do.

Pydantic's errors have types, from which the sentences are made; its own texts are never shown.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from tickertape.producers.monitor.config.problems import Problem, field_path
from tickertape.producers.monitor.config.yaml_file import Document
from tickertape.producers.monitor.probes import KINDS
from tickertape.producers.monitor.probes.result import SECRET_NAME
from tickertape.producers.monitor.probes.settings import Schedule
from tickertape.producers.monitor.types import Settings

from tickertape.config.names import closest

Location = tuple[int | str, ...]

_EXAMPLES: Final = {
    "gateways": "a list, such as '- id: ctp_main'",
    "id": "id: ctp_main",
    "type": "type: ctp",
    "probes": 'probes: [{kind: tcp, address: "10.0.0.1:41205"}]',
    "kind": f"one of {', '.join(KINDS)}",
    "address": 'address: "10.0.0.1:41205"',
    "url": 'url: "http://10.0.0.1:8000/health"',
    "command": 'command: ["/opt/check", "--brief"]',
    "subject": 'subject: "md.ctp_main.>"',
    "zone": "zone: Asia/Shanghai",
    "spans": 'spans: ["09:00-11:30", "21:00-02:30"]',
    "sender_comp_id": "sender_comp_id: DESK1",
    "target_comp_id": "target_comp_id: LME",
}
"""Examples of settings that are required."""

MAX_LISTED: Final = 15
"""Settings of one mapping from which those of the schedule, which many mappings have, are not listed."""

_NOT_NEEDED: Final = "remove the line, or give it a value"

_EXPECTED: Final[Mapping[str, tuple[str, str]]] = {
    "string": ("text", "put it in quotes"),
    "int": ("a whole number", "use a number such as 3, without quotes, unit or fraction"),
    "float": ("a number", "use a number such as 0.5, without quotes"),
    "bool": ("true or false", "use true or false, without quotes"),
    "list": ("a list", "write it as [a, b], or as lines that begin with '- '"),
    "tuple": ("a list", "write it as [a, b], or as lines that begin with '- '"),
    "dict": ("a mapping", "write it as {key: value}, or as indented lines 'key: value'"),
    "model": ("a mapping", "write it as {key: value}, or as indented lines 'key: value'"),
}
"""Names of the types of values, and how to write one."""

_OTHER_TYPE: Final = ("a value of another type", "see deploy/gateways.example.yaml")

_LIMITS: Final[Mapping[str, tuple[str, str]]] = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be at least"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be at most"),
    "finite_number": ("", "must be a finite number"),
}
"""Errors of numbers: the name of the limit, and the sentence before it."""


def to_problems(
    path: Path, document: Document, model: type[Settings], error: ValidationError
) -> list[Problem]:
    """Convert the errors of a model to the problems of its file, in the order of their lines."""
    found: dict[Location, list[Problem]] = {}
    details = error.errors(include_url=False)
    for detail in details:
        absent = detail["type"] in ("missing", "extra_forbidden", "invalid_key")
        location = _clean(document.root, detail["loc"], absent)
        message, hint = _describe(detail, location, document, model)
        problem = Problem(path, document.line(location), field_path(location), message, hint)
        found.setdefault(location, []).append(problem)
    problems = [problem for location in found for problem in _without_alternatives(location, found, details)]
    return sorted(problems, key=lambda problem: problem.line)


def _without_alternatives(
    location: Location, found: Mapping[Location, list[Problem]], details: Iterable[ErrorDetails]
) -> list[Problem]:
    """Return one problem of a setting that may have several types, each of which has its own error."""
    problems = found[location]
    if any(len(other) > len(location) and other[: len(location)] == location for other in found):
        # An item of a list is wrong; that the list is not a single value is no problem.
        return [] if _is_about_types(problems) else problems[:1]
    return [next((one for one in problems if not _is_about_types([one])), problems[0])]


def _is_about_types(problems: list[Problem]) -> bool:
    return all(problem.message.startswith("must be ") and problem.hint in _TYPE_HINTS for problem in problems)


_TYPE_HINTS: Final = frozenset(hint for _, hint in _EXPECTED.values())


def _describe(
    detail: ErrorDetails, location: Location, document: Document, model: type[Settings]
) -> tuple[str, str]:
    kind, value, context = detail["type"], detail.get("input"), detail.get("ctx", {})
    name = str(location[-1]) if location else ""
    if kind == "value_error" and value is not None:
        message, separator, hint = str(context["error"]).partition("; ")
        if isinstance(value, bool):
            message = message.replace(repr(value), _excerpt(value, ()))
        message = _shorten(message)
        return (message, hint) if separator else (message, "correct it, or remove it to use the default")
    if kind == "missing":
        return "is missing", f"add {_EXAMPLES.get(name, repr(name))}"
    if kind == "extra_forbidden":
        return _describe_unknown(location, document, model)
    if kind == "invalid_key" or detail["loc"][-1:] == ("[key]",):
        if kind == "string_pattern_mismatch":
            return "is not a name of an environment variable", "use letters, digits and '_'"
        if kind.startswith("int") or kind in _LIMITS:
            return "has a key that is not a tag", "use the number of the field, such as 7001"
        return "has a key that is not text", "put the key in quotes"
    if value is None:
        return "has no value", _NOT_NEEDED if name not in _EXAMPLES else f"add {_EXAMPLES[name]}"
    if kind == "literal_error":
        # Choices are texts, except for a setting that can only be true.
        choices = str(context["expected"]).replace("'", "").replace(" or ", ", ").replace("True", "true")
        other = closest(str(value), choices.split(", "))
        return f"is {_excerpt(value, location)}", f"use {'one of ' if ',' in choices else ''}{choices}" + (
            f" (did you mean {other}?)" if other is not None else ""
        )
    if kind in _LIMITS:
        limit, sentence = _LIMITS[kind]
        bound = f" {context[limit]:g}" if limit else ""
        return f"is {_excerpt(value, location)}, which {sentence}{bound}", "use a number within the limit"
    return _describe_length(kind, value, location, context) or _describe_type(kind, value, location)


def _describe_length(
    kind: str, value: object, location: Location, context: Mapping[str, Any]
) -> tuple[str, str] | None:
    name = str(location[-1]) if location else ""
    match kind:
        case "too_short" | "string_too_short":
            return "is empty", f"add {_EXAMPLES[name]}" if name in _EXAMPLES else "add a value"
        case "too_long":
            return (
                f"has {context['actual_length']} items; the limit is {context['max_length']}",
                "remove some",
            )
        case "string_too_long":
            return f"is longer than {context['max_length']} characters", "shorten it"
        case "string_pattern_mismatch":
            return "has a character that is not allowed here", "remove control characters and NUL bytes"
        case _:
            return None


def _describe_type(kind: str, value: object, location: Location) -> tuple[str, str]:
    # Types are named as in int_type, int_parsing, int_from_float and model_attributes_type.
    expected, hint = _EXPECTED.get(
        kind.partition("_")[0], ("another value", "see deploy/gateways.example.yaml")
    )
    return f"must be {expected}, but is {_excerpt(value, location)}", hint


def _excerpt(value: object, location: Location) -> str:
    """Describe a value in a few words, without one that may be a secret."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    names = [part for part in location if isinstance(part, str)]
    if any(name in ("headers", "environment") or SECRET_NAME.search(name) for name in names):
        return "a value of another type"
    if isinstance(value, bool):
        return "true" if value else "false"
    return _shorten(repr(value) if isinstance(value, str) else f"the number {value}", 20)


def _shorten(text: str, length: int = 100) -> str:
    """Return a text without its middle part if it is longer than two lengths."""
    return text if len(text) <= 2 * length else f"{text[:length]}…{text[-length:]}"


def _describe_unknown(location: Location, document: Document, model: type[Settings]) -> tuple[str, str]:
    name = str(location[-1])
    current = _model_at(model, document.body, location[:-1])
    known = [field.alias or key for key, field in current.model_fields.items()] if current else []
    if name in _PLACES:
        return "is not a setting here", f"move it to {_PLACES[name]}, or remove it"
    if (other := closest(name, known)) is not None:
        return "is not a setting here", f"did you mean {other!r}?"
    own = [key for key in known if len(known) <= MAX_LISTED or key not in Schedule.model_fields]
    return "is not a setting here", f"remove it, or use one of {', '.join(own)}"


def _find_places() -> dict[str, str]:
    """Return the place of each setting that is not in all probes, for one that is in the wrong place."""
    places = {
        **dict.fromkeys(("gateways", "exchanges", "connectivity", "defaults"), "the top level of the file"),
        **dict.fromkeys(("session", "recovery", "probes", "labels", "group"), "a gateway"),
        **dict.fromkeys(("dwell", "flapping"), "a gateway or to 'defaults'"),
        **dict.fromkeys(("zone", "spans", "holidays"), "an exchange"),
    }
    kinds: dict[str, list[str]] = {}
    for kind, probe in KINDS.items():
        for key, field in probe.model_fields.items():
            kinds.setdefault(field.alias or key, []).append(kind)
    probes = {
        name: "a probe" if len(found) == len(KINDS) else f"a probe of kind {' or '.join(found)}"
        for name, found in kinds.items()
    }
    return probes | places


_PLACES: Final = _find_places()
"""Place of each setting that has one."""


def _model_at(model: type[Settings], body: object, location: Location) -> type[Settings] | None:
    """Return the model of a mapping in the file, which of several may depend on its ``kind``."""
    current: object = model
    for part in location:
        body = _item(body, part)
        if isinstance(current, type) and issubclass(current, Settings):
            fields = {field.alias or key: field for key, field in current.model_fields.items()}
            if (field := fields.get(str(part))) is None:
                return None
            current = field.annotation
        else:
            current = get_args(current)[-1] if get_args(current) else None
        current = _model_in(current, body)
    return current if isinstance(current, type) and issubclass(current, Settings) else None


def _model_in(annotation: object, body: object) -> object:
    """Return the model, or the type of a list or a mapping of models, in an annotation."""
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        kind = body.get("kind") if isinstance(body, dict) and "kind" in annotation.model_fields else None
        return KINDS.get(kind, annotation) if isinstance(kind, str) else annotation
    # The items of a list or of a mapping are the next part of the location.
    if get_origin(annotation) in (list, dict):
        return annotation
    models = (_model_in(argument, body) for argument in get_args(annotation))
    return next((model for model in models if _has_model(model)), annotation)


def _has_model(annotation: object) -> bool:
    if isinstance(annotation, type):
        return issubclass(annotation, Settings)
    return any(_has_model(argument) for argument in get_args(annotation))


def _item(body: object, part: int | str) -> object:
    try:
        return body[part]  # type: ignore[index]
    except (LookupError, TypeError):
        return None


_PYTHON_NAMES: Final[Mapping[int | str, str]] = {"None": "null", "True": "true", "False": "false"}
"""Keys without a type of text, as Pydantic writes them, and as YAML does."""


def _clean(root: yaml.Node, location: Location, absent: bool) -> Location:
    """Return a location without the parts that Pydantic adds for the alternatives of a type.

    Args:
        root: the file.
        location: location of an error.
        absent: whether the last part may be a setting that is not in the file.
    """
    node: yaml.Node | None = root
    cleaned: list[int | str] = []
    for position, part in enumerate(location):
        last = position == len(location) - 1
        if part == "[key]" and last:
            break
        part = _PYTHON_NAMES.get(part, part)
        if isinstance(node, yaml.MappingNode):
            entry = next((item for key, item in reversed(node.value) if key.value == str(part)), None)
            if entry is None and not (last and absent):
                continue
            node, part = entry, str(part)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part] if part < len(node.value) else None
        else:
            continue
        cleaned.append(part)
    return tuple(cleaned)
