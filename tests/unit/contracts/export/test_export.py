"""Export of the contract to other languages: complete, up to date, and in agreement with the models."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import orjson
import pytest
from jsonschema import Draft202012Validator
from tickertape.contracts import close_codes as codes
from tickertape.contracts import messages as wire
from tickertape.contracts.client_messages import parse_client_message
from tickertape.contracts.decode import decode
from tickertape.contracts.events import MODELS, Event, Status
from tickertape.contracts.export import __main__ as export
from tickertape.contracts.export.json_schema import CLIENT_MESSAGES, RELAY_MESSAGES, message_type

TIME = "2025-06-24T10:30:45.123Z"


schemas = cache(export.generate_schemas)
files = cache(export.generate_files)


@pytest.fixture
def generated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Share the generated files between all tests that only read them."""
    monkeypatch.setattr(export, "generate_files", files)


@cache
def _validator(name: str, definition: str = "") -> Draft202012Validator:
    schema = schemas()[name]
    if definition:
        schema = {"$defs": schema["$defs"], "$ref": f"#/$defs/{definition}"}
    return Draft202012Validator(schema)


@pytest.mark.usefixtures("generated_once")
def test_the_files_are_up_to_date() -> None:
    """The committed files match the models; otherwise run 'python -m tickertape.contracts.export'."""
    assert export.find_stale() == []


@pytest.mark.usefixtures("generated_once")
def test_stale_files_are_listed_and_written(tmp_path: Path) -> None:
    """Missing and changed files are written, and the others are left alone."""
    names = [
        "schema/events.schema.json",
        "schema/messages.schema.json",
        "schema/gateways.schema.json",
        "schema/audit.schema.json",
        "schema/asyncapi.json",
        "typescript/src/types.ts",
    ]
    assert export.find_stale(tmp_path) == names
    assert export.write_files(tmp_path) == [tmp_path / name for name in names]
    assert export.find_stale(tmp_path) == []
    (tmp_path / names[5]).write_text("old")
    assert export.find_stale(tmp_path) == [names[5]]
    assert export.write_files(tmp_path) == [tmp_path / names[5]]
    assert export.write_files(tmp_path) == []


@pytest.mark.usefixtures("generated_once")
def test_check_lists_stale_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``--check`` exits with 1, prints one line per stale file, and writes nothing."""
    monkeypatch.setattr(export, "ROOT", tmp_path)
    assert export.main(["--check"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 6
    assert list(tmp_path.iterdir()) == []
    assert export.main([]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert export.main(["--check"]) == 0
    assert capsys.readouterr() == ("", "")


def test_the_output_is_reproducible() -> None:
    """Two exports are identical byte by byte."""
    assert export.generate_files() == files()


@pytest.mark.parametrize("name", ["events", "messages"])
def test_the_schemas_are_valid(name: str) -> None:
    """Both schemas are valid in the JSON Schema dialect that they declare."""
    Draft202012Validator.check_schema(schemas()[name])


LOG = {"event_type": "system_log", "timestamp": TIME, "level": "INFO", "message": "", "source": "a"}


@pytest.mark.parametrize(
    ("body", "valid"),
    [
        (LOG, True),
        ({**LOG, "extra": 1, "metadata": {"a": 1}}, True),
        ({**LOG, "level": "TRACE"}, False),
        ({**LOG, "source": ""}, False),
        ({key: value for key, value in LOG.items() if key != "timestamp"}, False),
        ({key: value for key, value in LOG.items() if key != "event_type"}, False),
        ({key: value for key, value in LOG.items() if key != "message"}, False),
        ({"event_type": "order_filled", "timestamp": TIME, "n": 1}, True),
        ({"event_type": "order_filled"}, False),
        ({"event_type": "", "timestamp": TIME}, False),
        ([], False),
    ],
)
def test_the_schema_agrees_with_decode(body: object, valid: bool) -> None:
    """An event is valid by the schema exactly when the relay accepts it."""
    assert _validator("events").is_valid(body) is valid
    assert isinstance(decode("log.info.a", orjson.dumps(body)), Event) is valid


ITEM = {"subject": "log.info.a", "seq": 1, "event": LOG}
MESSAGES: list[tuple[str, dict[str, Any]]] = [
    ("ClientMessage", {"type": "auth", "token": "t"}),
    ("ClientMessage", {"type": "subscribe"}),
    ("ClientMessage", {"type": "subscribe", "subjects": [">"], "level": "WARN", "interval_ms": 5}),
    ("ClientMessage", {"type": "subscribe", "cursor": "a-1", "since": None}),
    ("ClientMessage", {"type": "ping", "id": 1}),
    ("RelayMessage", {"type": "events", "events": [ITEM], "cursor": "a-1"}),
    ("RelayMessage", {"type": "events", "events": [], "cursor": "a-1", "conflated": 3}),
    ("RelayMessage", {"type": "gap", "from": "a-1", "to": "a-2", "dropped": 1, "by": {}, "reason": "slow"}),
    ("RelayMessage", {"type": "heartbeat", "cursor": "a-1", "time": TIME}),
    ("RelayMessage", {"type": "bye", "code": 1001, "reason": "", "retry_after_ms": 5}),
]  # fmt: skip


@pytest.mark.parametrize(("side", "message"), MESSAGES)
def test_messages_are_valid(side: str, message: dict[str, Any]) -> None:
    """Documented messages are valid by the schema, only on their own side, and by the models."""
    assert _validator("messages").is_valid(message)
    assert _validator("messages", side).is_valid(message)
    other = {"ClientMessage": "RelayMessage", "RelayMessage": "ClientMessage"}[side]
    assert not _validator("messages", other).is_valid(message)
    if side == "ClientMessage":
        parse_client_message(orjson.dumps(message))
    else:
        wire.relay_message.validate_json(orjson.dumps(message))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "subscribe", "mode": "fast"},
        {"type": "subscribe", "level": "info"},
        {"type": "subscribe", "cursor": "x"},
        {"type": "events", "events": [{"subject": "a", "seq": 1, "event": {}}], "cursor": "a-1"},
        {"type": "other"},
        {},
    ],
)
def test_invalid_messages_are_rejected(message: dict[str, Any]) -> None:
    """The schema rejects messages that the relay rejects."""
    assert not _validator("messages").is_valid(message)


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            if key == "$ref":
                yield item
            else:
                yield from _references(item)
    elif isinstance(value, list):
        for item in value:
            yield from _references(item)


def test_asyncapi_is_complete() -> None:
    """The AsyncAPI document has both directions and all subjects, and all its references resolve."""
    document = export.generate_asyncapi()
    for reference in _references(document):
        node: Any = document
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]
    names = {model.__name__ for model in (*CLIENT_MESSAGES, *RELAY_MESSAGES)}
    assert set(document["channels"]["feed"]["messages"]) == names
    operations = document["operations"]
    assert [len(operations[name]["messages"]) for name in ("receiveFromClient", "sendToClient")] == [3, 11]
    addresses = [channel["address"] for channel in document["channels"].values()]
    of_events = [
        re.sub("_([a-z])", lambda letter: letter[1].upper(), address)
        for model in MODELS.values()
        for address in model.SUBJECT.templates
    ]
    assert "gateway.status.{gatewayType}.{gatewayId}" in of_events
    assert addresses == ["/ws", *of_events, None, "rejected.{subject}"]
    for channel in document["channels"].values():
        assert set(channel.get("parameters", {})) == set(re.findall(r"{(\w+)}", channel["address"] or ""))
    assert {server["protocol"] for server in document["servers"].values()} == {"ws", "nats"}


def test_typescript_is_complete() -> None:
    """TypeScript has a type or a table row for each message, event, status and close code."""
    text = export.generate_typescript()
    for model in (*CLIENT_MESSAGES, *RELAY_MESSAGES):
        assert f'export interface {model.__name__}Message {{\n  type: "{message_type(model)}";' in text
    for name, event in MODELS.items():
        assert f'export interface {event.__name__} {{\n  event_type: "{name}";' in text
        assert f"  {name}: {event.__name__};\n" in text
    for status in Status:
        assert json.dumps(status) in text
    for code, rule in codes.CLOSE_CODES.items():
        row = f'  {int(code)}: {{\n    name: "{code.name}",\n    meaning: "{rule.meaning}",\n'
        assert f'{row}    reconnect: "{rule.reconnect}",' in text
    assert "unknown;" in text
    assert ": any" not in text


def test_descriptions_have_no_source_indentation() -> None:
    """Exported descriptions have no source indentation, which Python keeps in docstrings before 3.13."""
    for name, text in files().items():
        if name.endswith(".json"):
            assert "\\n " not in text, name
