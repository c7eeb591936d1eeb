"""The contract as JSON Schema (draft 2020-12), made from the pydantic models.

Two documents, each complete in itself: ``events`` (payloads of NATS messages) and ``messages`` (text frames
between relay and client). They describe what is written and delivered; the spellings of a level that a relay
rewrites on their way in are no part of them.
"""

import ast
import inspect
from itertools import pairwise
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from tickertape.contracts import events
from tickertape.contracts import messages as wire

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

CLIENT_MESSAGES: Final[tuple[type[wire.Message], ...]] = get_args(wire.ClientMessage)
"""What a client sends."""

RELAY_MESSAGES: Final[tuple[type[wire.Message], ...]] = get_args(get_args(wire.RelayMessage)[0])
"""What a relay sends."""


def schemas() -> dict[str, dict[str, Any]]:
    """Return both documents by name, ``events`` and ``messages``."""
    return {"events": _events(), "messages": _messages()}


def message_type(model: type[wire.Message]) -> str:
    """The ``type`` by which a message is routed."""
    (name,) = get_args(model.model_fields["type"].annotation)
    return str(name)


def _events() -> dict[str, Any]:
    return {
        "$schema": DIALECT,
        "$id": "urn:tickertape:v1:events",
        "title": "Tickertape events",
        "description": "Payload of a message in NATS: one UTF-8 JSON object of at most "
        f"{events.MAX_EVENT_BYTES} bytes, nested at most {events.MAX_EVENT_DEPTH} deep, no key twice.",
        "$ref": "#/$defs/Event",
        "$defs": _event_definitions(),
    }


def _messages() -> dict[str, Any]:
    definitions = _definitions([*CLIENT_MESSAGES, *RELAY_MESSAGES])
    definitions["Item"]["properties"]["event"] = {"$ref": "#/$defs/Event"}
    definitions["ClientMessage"] = {
        "description": "What a client sends.",
        "oneOf": [_ref(model.__name__) for model in CLIENT_MESSAGES],
    }
    definitions["RelayMessage"] = {
        "description": "What a relay sends. Types and fields may be added; ignore what you do not know.",
        "oneOf": [_ref(model.__name__) for model in RELAY_MESSAGES],
    }
    return {
        "$schema": DIALECT,
        "$id": "urn:tickertape:v1:messages",
        "title": "Tickertape messages",
        "description": f"Text frames of the WebSocket subprotocol {wire.SUBPROTOCOL}: one JSON object each, "
        f"of at most {wire.MAX_MESSAGE_BYTES} bytes, routed by its type.",
        "oneOf": [_ref("ClientMessage"), _ref("RelayMessage")],
        "$defs": dict(sorted({**definitions, **_event_definitions()}.items())),
    }


def _event_definitions() -> dict[str, Any]:
    definitions = _definitions(list(events.MODELS.values()))
    for name, model in events.MODELS.items():
        definition = definitions[model.__name__]
        # The models fill these two in for producers; on the wire they are there.
        definition["required"] = ["event_type", "timestamp", *definition["required"]]
        definition["properties"]["event_type"] = {"const": str(name), "type": "string"}
    definitions["OtherEvent"] = {
        "description": "An event of a type that others added to the contract; travels like a log event.",
        "type": "object",
        "properties": {
            "event_type": {
                "type": "string",
                "minLength": 1,
                "not": {"enum": [str(name) for name in events.MODELS]},
            },
            "timestamp": definitions["SystemLog"]["properties"]["timestamp"],
        },
        "required": ["event_type", "timestamp"],
        "additionalProperties": True,
    }
    known = [_ref(model.__name__) for model in events.MODELS.values()]
    definitions["Event"] = {
        "description": "Any event. Unknown fields travel along.",
        "oneOf": [*known, _ref("OtherEvent")],
    }
    return dict(sorted(definitions.items()))


def _definitions(models: list[Any]) -> dict[str, Any]:
    _, document = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = document["$defs"]
    for definition in definitions.values():
        # Titles only repeat the names.
        definition.pop("title", None)
        for field in definition.get("properties", {}).values():
            field.pop("title", None)
    for model in models:
        properties = definitions[model.__name__]["properties"]
        for name, text in _descriptions(model).items():
            properties[name] = dict(sorted({"description": text, **properties[name]}.items()))
    return definitions


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of a model's fields, which a producer that imports the model need not look up."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if not issubclass(base, BaseModel) or base is BaseModel:
            continue
        (definition,) = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in pairwise(definition.body):
            if (
                isinstance(field, ast.AnnAssign)
                and isinstance(field.target, ast.Name)
                and field.target.id in base.model_fields
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[field.target.id] = inspect.cleandoc(str(text.value.value))
    return found


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
