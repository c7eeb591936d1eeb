"""Event types: everything about a type follows from the single declaration of its model."""

import json
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
from tickertape.contracts.events import MODELS, STATE_SUBJECTS, STREAM_SUBJECTS
from tickertape.contracts.export.__main__ import generate_files

import tickertape
from tests.support.paths import ROOT
from tickertape.names import Names
from tickertape.nats.stream_differences import HEALTH_SUBJECT
from tickertape.nats.streams import stream_configs

TABLE = {
    "gateway_status_change": ("state", ("gateway.status.{gateway_type}.{gateway_id}",)),
    "gateway_recovery": ("log", ("gateway.recovery.{gateway_type}.{gateway_id}",)),
    "system_log": ("log", ("log.{level}.{source}",)),
    "system_health": ("state", ("system.health.{component}", "system.health.{component}.{instance}")),
}
"""Kind and subjects of each type."""

DECLARED = '''
class FeedStatus(EventModel):
    """Status of a feed, on ``feed.status.<venue>[.<line>]``."""

    SUBJECT = EventSubject(
        "feed.status.{venue}[.{line}]", venue="Venue of the feed", line="Line of the feed"
    )
    STATUS = "status"

    event_type: Literal["feed_status"] = "feed_status"
    venue: Id
    line: Id | None = None
    status: StatusText


class OrderEvent(EventModel):
    """Event of an order, on ``order.event.<side>.<id>``."""

    SUBJECT = EventSubject(
        "order.event.{side}.{order_id}",
        choices={"side": ("BUY", "SELL")},
        side="Side of the order",
        order_id="Id of the order",
    )

    event_type: Literal["order_event"] = "order_event"
    order_id: Id
    side: Literal["BUY", "SELL"]
    price: float


'''
"""Declarations of an additional state and log event."""

PROGRAM = """
import json, sys
from pathlib import Path
from tickertape.contracts import events
from tickertape.contracts.decode import decode
from tickertape.contracts.events import FeedStatus, OrderEvent, Rejection
from tickertape.contracts.export.__main__ import generate_files
from tickertape.names import Names
from tickertape.nats.stream_differences import HEALTH_SUBJECT
from tickertape.nats.streams import stream_configs
from tickertape.producers.sdk.publisher import validated
from tickertape.relay.settings import RelaySettings

def decode_text(subject, body):
    found = decode(subject, json.dumps({"timestamp": "2025-06-24T10:30:45Z", **body}).encode())
    return str(found) if isinstance(found, Rejection) else [found.state, found.removed]

feed = FeedStatus(venue="shfe", line="a.1", status="HEALTHY")
order = OrderEvent(side="BUY", order_id="7", price=1.5)
up = {"event_type": "feed_status", "venue": "shfe", "status": "HEALTHY"}
bought = {"event_type": "order_event", "side": "BUY", "order_id": "7", "price": 1.5}
for event in (feed, order):
    validated(event.subject, event.encode())
print(json.dumps({
    "subjects": [feed.subject, order.subject],
    "decoded": [
        decode_text("feed.status.shfe", up),
        decode_text("feed.status.shfe", {**up, "status": "REMOVED"}),
        decode_text("feed.status.shfe", {**up, "line": "a"}),
        decode_text("feed.status.dce", up),
        decode_text("order.event.buy.7", bought),
    ],
    "streams": {stream["name"]: stream for stream in stream_configs(Names())},
    "patterns": RelaySettings(subjects="feed.>,order.>").patterns(),
    "files": generate_files(),
}))
"""


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the results of a copy of the package whose ``events.py`` declares two additional types."""
    package = tmp_path_factory.mktemp("copy") / "tickertape"
    package.mkdir()
    for path in (*(ROOT / "tickertape").iterdir(), ROOT / "relay", ROOT / "producers"):
        (package / path.name).symlink_to(path)
    ignored = shutil.ignore_patterns("typescript", "__pycache__")
    shutil.copytree(ROOT / "contracts", package / "contracts", ignore=ignored)
    declarations = package / "contracts" / "events.py"
    before, mark, after = declarations.read_text(encoding="utf-8").partition("MODELS: Final")
    first = next(iter(MODELS.values())).__name__
    named = after.replace(first, f"{first}, FeedStatus, OrderEvent", 1)
    assert named != after
    declarations.write_text(before.rstrip() + "\n\n" + DECLARED + mark + named, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(package.parent), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd=package.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("event_type", MODELS)
def test_everything_follows_from_the_declaration(event_type: str) -> None:
    """The kind, subjects, streams, schema and TypeScript of a type follow from its declaration."""
    model = MODELS[event_type]
    kind, addresses = TABLE[event_type]
    assert model.SUBJECT.templates == addresses
    pattern = f"{model.SUBJECT.prefix}.>"
    kept = {
        transform["src"]
        for config in stream_configs(Names())
        if config["name"] in ("LATEST", "HEALTH")
        for transform in config["sources"][0]["subject_transforms"]
    }
    assert (kind == "state") == (pattern in STATE_SUBJECTS) == (pattern in kept)
    assert f"{pattern.partition('.')[0]}.>" in STREAM_SUBJECTS
    texts = generate_files()
    assert f'"const": "{event_type}"' in texts["schema/events.schema.json"]
    assert f'  event_type: "{event_type}";' in texts["typescript/src/types.ts"]
    assert f"  {event_type}: {model.__name__};" in texts["typescript/src/types.ts"]
    channels = json.loads(texts["schema/asyncapi.json"])["channels"].values()
    assert sum(list(channel["messages"]) == [model.__name__] for channel in channels) == len(addresses)


def test_every_type_is_in_the_table() -> None:
    """The table above lists every event type, and programs can import each one from the package."""
    assert list(MODELS) == list(TABLE)
    assert {model.__name__ for model in MODELS.values()} <= set(tickertape.__all__)


def test_an_additional_type_is_a_state_or_a_log_event(extended: dict[str, Any]) -> None:
    """Subject and body of an additional type are checked, and its kind follows from its declaration."""
    assert extended["subjects"] == ["feed.status.shfe.a=2E1", "order.event.buy.7"]
    assert extended["decoded"] == [
        [True, False],
        [True, True],
        "subject_mismatch: line is set, but missing in the subject",
        "subject_mismatch: venue is 'shfe', but 'dce' in the subject",
        [False, False],
    ]


def test_an_additional_type_is_stored_and_followed(extended: dict[str, Any]) -> None:
    """Streams store an additional type, the LATEST stream keeps its state, and a relay can follow it."""
    streams = extended["streams"]
    assert set(streams["EVENTS"]["subjects"]) == {*STREAM_SUBJECTS, "feed.>", "order.>", "checkpoint.>"}
    kept = {transform["src"] for transform in streams["LATEST"]["sources"][0]["subject_transforms"]}
    assert kept == {*STATE_SUBJECTS, "feed.status.>"} - {HEALTH_SUBJECT}
    assert sorted(extended["patterns"]) == ["feed.>", "order.>"]


def test_an_additional_type_is_exported(extended: dict[str, Any]) -> None:
    """JSON Schema, TypeScript and AsyncAPI include additional types besides the existing ones."""
    texts = extended["files"]
    schema = json.loads(texts["schema/events.schema.json"])["$defs"]
    assert {"$ref": "#/$defs/FeedStatus"} in schema["Event"]["oneOf"]
    assert schema["OrderEvent"]["required"] == ["event_type", "timestamp", "order_id", "side", "price"]
    assert "order_event" in schema["OtherEvent"]["properties"]["event_type"]["not"]["enum"]
    types = texts["typescript/src/types.ts"]
    assert 'export interface FeedStatus {\n  event_type: "feed_status";' in types
    assert '  "feed_status",\n  "order_event",\n' in types
    document = json.loads(texts["schema/asyncapi.json"])
    channels = document["channels"]
    assert channels["feedStatusOfLine"]["address"] == "feed.status.{venue}.{line}"
    side = channels["orderEvent"]["parameters"]["side"]
    assert side == {"description": "Side of the order, in lower case.", "enum": ["buy", "sell"]}
    assert "receiveOrderEvent" in document["operations"]
    assert set(json.loads(generate_files()["schema/asyncapi.json"])["channels"]) < set(channels)
