"""AsyncAPI 3.0 document of the contract: the feed over WebSocket, and the subjects in NATS.

It describes the relay, which receives events from NATS and messages from clients, and sends messages to
clients and rejected events to NATS.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc
from typing import Any, Final

from tickertape.contracts import events
from tickertape.contracts import messages as wire
from tickertape.contracts.client_messages import Subscribe
from tickertape.contracts.cursors import CURSOR_PATTERN
from tickertape.contracts.export import json_schema
from tickertape.contracts.subjects import LEVELS, EventSubject

_SCHEMAS: Final = "#/components/schemas/"

_TOKEN: Final = (
    "Escaped: bytes outside A-Z a-z 0-9 _ - are written as =XX (upper-case hex); at most 128 characters."
)


def generate_asyncapi() -> dict[str, Any]:
    """Return the AsyncAPI document."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tickertape",
            "version": wire.SUBPROTOCOL.rpartition(".v")[2],
            "description": "Relay of events from NATS JetStream to WebSocket clients. In a deployment with a "
            "subject prefix, every subject in NATS starts with it; clients receive subjects without it.",
            "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": _channels(),
        "operations": _operations(),
        "components": {
            "schemas": _with_moved_references(json_schema.generate_schemas()["messages"]["$defs"]),
            "messages": _messages(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "In the Authorization header, in the subprotocol bearer.<JWT>, or in "
                    "a first message auth.",
                }
            },
        },
    }


def _servers() -> dict[str, Any]:
    return {
        "relay": {
            "host": "localhost:8080",
            "protocol": "ws",
            "description": "A relay; wss if it has a certificate.",
            "security": [{"$ref": "#/components/securitySchemes/bearer"}],
        },
        "nats": {
            "host": "localhost:4222",
            "protocol": "nats",
            "description": "NATS with JetStream; all subjects are in the stream EVENTS, except rejected.>.",
        },
    }


def _channels() -> dict[str, Any]:
    models = (*json_schema.CLIENT_MESSAGES, *json_schema.RELAY_MESSAGES)
    channels: dict[str, Any] = {
        "feed": {
            "address": "/ws",
            "title": "Feed",
            "description": f"WebSocket subprotocol {wire.SUBPROTOCOL}; each text message is one JSON object.",
            "servers": [{"$ref": "#/servers/relay"}],
            "messages": _refs(model.__name__ for model in models),
            "bindings": {"ws": {"method": "GET", "query": _query(), "bindingVersion": "0.1.0"}},
        }
    }
    for name, address, model in _event_channels():
        parameters = {_camel(field): _parameter(model.SUBJECT, field) for field in _fields(address)}
        address = re.sub(r"{\w+}", lambda field: _camel(field[0]), address)
        channels[name] = _nats_channel(address, model.__name__, cleandoc(model.__doc__ or ""), parameters)
    *roots, last = (pattern.removesuffix(".>") for pattern in events.STREAM_SUBJECTS)
    channels["otherEvents"] = {
        **_nats_channel(
            "",
            "OtherEvent",
            f"Events of other types, on any subject below {', '.join(roots)} and {last}.",
            {},
        ),
        "address": None,
    }
    channels["rejected"] = _nats_channel(
        "rejected.{subject}",
        "RejectedEvent",
        "Messages that violate the contract, unchanged; in the stream REJECTED.",
        {"subject": {"description": "Subject on which the message was published; contains dots."}},
    )
    return channels


def _event_channels() -> Iterator[tuple[str, str, type[events.EventModel]]]:
    """Yield the name, address and model of each channel of the event types."""
    for model in events.MODELS.values():
        name = _camel(model.SUBJECT.prefix)
        for number, address in enumerate(model.SUBJECT.templates):
            yield f"{name}{_camel(f'_of_{model.SUBJECT.optional}')}" if number else name, address, model


def _camel(name: str) -> str:
    return re.sub(r"[._](\w)", lambda letter: letter[1].upper(), name)


def _fields(address: str) -> list[str]:
    return re.findall(r"{(\w+)}", address)


def _parameter(subject: EventSubject, field: str) -> dict[str, Any]:
    description = subject.descriptions[field]
    if (choices := subject.choices.get(field)) is None:
        return {"description": f"{description}. {_TOKEN}"}
    return {"description": f"{description}, in lower case.", "enum": [choice.lower() for choice in choices]}


def _nats_channel(address: str, message: str, description: str, parameters: dict[str, Any]) -> dict[str, Any]:
    channel: dict[str, Any] = {
        "address": address,
        "description": description,
        "servers": [{"$ref": "#/servers/nats"}],
        "messages": _refs([message]),
    }
    if parameters:
        channel["parameters"] = parameters
    return channel


def _query() -> dict[str, Any]:
    fields = Subscribe.model_json_schema()["properties"]
    descriptions = {name: field.get("description", "") for name, field in fields.items()}
    return {
        "type": "object",
        "description": f"Optional parameters; at most {wire.MAX_QUERY_BYTES} bytes. Tokens are rejected.",
        "properties": {
            "subjects": {
                "type": "string",
                "description": f"Comma-separated list. {descriptions['subjects']}",
            },
            "level": {"type": "string", "enum": list(LEVELS), "description": descriptions["level"]},
            "mode": {
                "type": "string",
                "enum": ["live", "complete", "latest"],
                "default": "live",
                "description": descriptions["mode"],
            },
            "cursor": {"type": "string", "pattern": CURSOR_PATTERN, "description": descriptions["cursor"]},
            "since": {"type": "string", "description": descriptions["since"]},
            "interval_ms": {
                "type": "integer",
                "default": wire.DEFAULT_INTERVAL_MS,
                "description": descriptions["interval_ms"],
            },
        },
    }


def _operations() -> dict[str, Any]:
    operations: dict[str, Any] = {
        "receiveFromClient": _operation("receive", "feed", json_schema.CLIENT_MESSAGES),
        "sendToClient": _operation("send", "feed", json_schema.RELAY_MESSAGES),
    }
    for name, _, model in _event_channels():
        operations[f"receive{name[0].upper()}{name[1:]}"] = _operation("receive", name, (model,))
    operations["receiveOtherEvents"] = _operation("receive", "otherEvents", ())
    operations["sendRejected"] = _operation("send", "rejected", ())
    return operations


def _operation(action: str, channel: str, models: tuple[type, ...]) -> dict[str, Any]:
    operation: dict[str, Any] = {"action": action, "channel": {"$ref": f"#/channels/{channel}"}}
    if models:
        operation["messages"] = [{"$ref": f"#/channels/{channel}/messages/{m.__name__}"} for m in models]
    return operation


def _messages() -> dict[str, Any]:
    messages: dict[str, Any] = {
        model.__name__: {
            "name": json_schema.message_type(model),
            "summary": cleandoc(model.__doc__ or ""),
            "payload": {"$ref": f"{_SCHEMAS}{model.__name__}"},
        }
        for model in (*json_schema.CLIENT_MESSAGES, *json_schema.RELAY_MESSAGES)
    }
    for name, event in events.MODELS.items():
        messages[event.__name__] = {
            "name": str(name),
            "summary": cleandoc(event.__doc__ or ""),
            "payload": {"$ref": f"{_SCHEMAS}{event.__name__}"},
        }
    messages["OtherEvent"] = {
        "name": "other_event",
        "summary": "An event of a type that is not part of the contract.",
        "payload": {"$ref": f"{_SCHEMAS}OtherEvent"},
    }
    messages["RejectedEvent"] = {
        "name": "rejected_event",
        "summary": "The original payload, which can be any bytes.",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {
                "Tickertape-Reason": {
                    "type": "string",
                    "description": "Rule that the event violates, and what is wrong with it.",
                },
                "Tickertape-Sequence": {
                    "type": "string",
                    "description": "Sequence of the message in the stream EVENTS.",
                },
                "Nats-Msg-Id": {
                    "type": "string",
                    "description": "<epoch>-<sequence>, so that each message is stored only once.",
                },
                "Tickertape-Raw-Subject": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "Original subject, if it is illegal. The address then has =XX for each "
                    "byte outside A-Za-z0-9_- and the dot, and = for an empty token; the message cannot be "
                    "replayed.",
                },
                "Tickertape-Raw-Headers": {
                    "type": "string",
                    "contentEncoding": "base64",
                    "description": "Original header block, if there is a Tickertape-Raw-Subject.",
                },
                "Tickertape-Raw-Headers-Size": {
                    "type": "string",
                    "description": "Size of the original header block in bytes, if it was truncated.",
                },
                "Tickertape-Subject": {
                    "type": "string",
                    "description": "Complete address, if it is too long for a subject.",
                },
                "Tickertape-Size": {
                    "type": "string",
                    "description": "Size of the original payload in bytes, if it was truncated.",
                },
                "Tickertape-Body": {
                    "const": "unavailable",
                    "description": "The original payload could not be read; the payload is empty.",
                },
            },
            "required": ["Tickertape-Reason", "Tickertape-Sequence", "Nats-Msg-Id"],
        },
    }
    return dict(sorted(messages.items()))


def _refs(names: Any) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/messages/{name}"} for name in names}


def _with_moved_references(value: Any) -> Any:
    """Replace the references of a JSON Schema document by references into this document."""
    if isinstance(value, dict):
        return {
            key: item.replace("#/$defs/", _SCHEMAS) if key == "$ref" else _with_moved_references(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_moved_references(item) for item in value]
    return value
