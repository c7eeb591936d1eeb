"""JSON Schema (draft 2020-12) of the contract, generated from the pydantic models.

Four self-contained documents: ``events`` (payloads of NATS messages), ``messages`` (WebSocket messages
between relay and client), ``gateways`` (pages about gateways over HTTP) and ``audit`` (records of the audit
stream). They describe the canonical form; the other spellings of a level, which the relay accepts and
rewrites, are not part of them.
"""

import ast
import inspect
from itertools import pairwise
from typing import Any, Final, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from tickertape.contracts import audit, events
from tickertape.contracts import messages as wire
from tickertape.contracts.client_messages import ClientMessage
from tickertape.contracts.gateway_pages import PAGES

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

CLIENT_MESSAGES: Final[tuple[type[wire.Message], ...]] = get_args(ClientMessage)
"""Messages that a client sends."""

RELAY_MESSAGES: Final[tuple[type[wire.Message], ...]] = get_args(get_args(wire.RelayMessage)[0])
"""Messages that a relay sends."""


def generate_schemas() -> dict[str, dict[str, Any]]:
    """Return the documents, keyed by their names: ``events``, ``messages``, ``gateways`` and ``audit``."""
    return {"events": _events(), "messages": _messages(), "gateways": _gateways(), "audit": _audit()}


def message_type(model: type[wire.Message]) -> str:
    """Return the ``type`` of a message."""
    (name,) = get_args(model.model_fields["type"].annotation)
    return str(name)


def _events() -> dict[str, Any]:
    return {
        "$schema": DIALECT,
        "$id": "urn:tickertape:v1:events",
        "title": "Tickertape events",
        "description": "Payload of a NATS message: a JSON object in UTF-8 without duplicate keys, of at most "
        f"{events.MAX_EVENT_BYTES} bytes, nested at most {events.MAX_EVENT_DEPTH} deep.",
        "$ref": "#/$defs/Event",
        "$defs": _event_definitions(),
    }


def _messages() -> dict[str, Any]:
    definitions = _definitions([*CLIENT_MESSAGES, *RELAY_MESSAGES])
    definitions["Item"]["properties"]["event"] = {"$ref": "#/$defs/Event"}
    definitions["ClientMessage"] = {
        "description": "Message from a client, routed by its type.",
        "oneOf": [_ref(model.__name__) for model in CLIENT_MESSAGES],
    }
    definitions["RelayMessage"] = {
        "description": "Message from a relay. Ignore unknown types and fields; later versions may add them.",
        "oneOf": [_ref(model.__name__) for model in RELAY_MESSAGES],
    }
    return {
        "$schema": DIALECT,
        "$id": "urn:tickertape:v1:messages",
        "title": "Tickertape messages",
        "description": f"Text messages of the WebSocket subprotocol {wire.SUBPROTOCOL}: a JSON object each, "
        f"of at most {wire.MAX_MESSAGE_BYTES} bytes, routed by its type.",
        "oneOf": [_ref("ClientMessage"), _ref("RelayMessage")],
        "$defs": dict(sorted({**definitions, **_event_definitions()}.items())),
    }


def _gateways() -> dict[str, Any]:
    return {
        "$schema": DIALECT,
        "$id": "urn:tickertape:v1:gateways",
        "title": "Tickertape pages about gateways",
        "description": "Response over HTTP: a JSON object. Ignore unknown fields; later versions may add "
        "them.",
        "anyOf": [_ref(model.__name__) for model in PAGES],
        "$defs": dict(sorted(_definitions(list(PAGES)).items())),
    }


def _audit() -> dict[str, Any]:
    models = get_args(audit.Record)
    definitions = _definitions(list(models))
    for model in models:
        # Written into every record, although it has a default.
        definitions[model.__name__]["required"] = ["record", *definitions[model.__name__]["required"]]
    return {
        "$schema": DIALECT,
        "$id": "urn:tickertape:v1:audit",
        "title": "Tickertape audit records",
        "description": "Payload of a message of the stream AUDIT: a JSON object, routed by its record.",
        "oneOf": [_ref(model.__name__) for model in models],
        "$defs": dict(sorted(definitions.items())),
    }


def _event_definitions() -> dict[str, Any]:
    definitions = _definitions(list(events.MODELS.values()))
    for name, model in events.MODELS.items():
        definition = definitions[model.__name__]
        # Optional for producers, which get them from the model; always present on the wire.
        definition["required"] = ["event_type", "timestamp", *definition["required"]]
        definition["properties"]["event_type"] = {"const": str(name), "type": "string"}
    definitions["OtherEvent"] = {
        "description": "An event of a type that is not part of the contract; delivered like a log event.",
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
        "description": "Any event; additional fields are delivered unchanged.",
        "oneOf": [*known, _ref("OtherEvent")],
    }
    return dict(sorted(definitions.items()))


def _definitions(models: list[Any]) -> dict[str, Any]:
    _, document = models_json_schema([(model, "validation") for model in models])
    definitions: dict[str, Any] = document["$defs"]
    for definition in definitions.values():
        # pydantic's titles only repeat the names.
        definition.pop("title", None)
        for field in definition.get("properties", {}).values():
            field.pop("title", None)
    for model in models:
        properties = definitions[model.__name__]["properties"]
        for name, text in _descriptions(model).items():
            properties[name] = dict(sorted({"description": text, **properties[name]}.items()))
    return definitions


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """Return the docstrings of a model's fields, keyed by their names on the wire.

    They are read from the source here, so that a program that imports the models does not spend time on it.
    """
    descriptions: dict[str, str] = {}
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
                name = base.model_fields[field.target.id].alias or field.target.id
                descriptions[name] = inspect.cleandoc(str(text.value.value))
    return descriptions


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/$defs/{name}"}
