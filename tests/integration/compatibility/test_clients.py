"""Clients of 0.1.0 at a relay of this version: the npm package, and everything that a client may send."""

import asyncio
import json
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from tickertape.contracts.cursors import CURSOR_PATTERN
from websockets.asyncio.client import ClientConnection
from websockets.typing import Subprotocol

from tests.support.clients.feed_client import jetstream, line, patiently, publish, run, status
from tests.support.compatibility.fixture_0_1_0 import FIXTURE, conversation, server_folder
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

NODE_MODULES = ROOT / "contracts" / "typescript" / "node_modules"

CURSOR_0_1_0 = json.dumps(r"^[0-9a-z]{1,16}-(0|[1-9][0-9]{0,19})$")

PROGRAM = """
import { createRequire } from "node:module";
import { connect } from "./package/dist/index.js";

const [url, modules, cursor] = process.argv.slice(2);
const { WebSocket } = createRequire(`${modules}/`)("ws");
const kept = { value: cursor };
const client = connect(url, {
  WebSocket,
  mode: "complete",
  cursorStore: { load: () => kept.value, save: (cursor) => { kept.value = cursor; } },
});
const say = (kind, value) => process.stdout.write(JSON.stringify([kind, value]) + "\\n");
client.on("log.>", ({ seq, event }) => say("log", [seq, event.message]));
client.on("gateway.status.>", ({ subject, event }) => say("status", [subject, event.current_status]));
client.onGap((gap) => say("gap", gap.reason));
client.onState((state) => say("state", state.phase));
"""
"""A user's program, which prints what it receives."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Run a NATS server on the streams of 0.1.0."""
    with NatsServer(server_folder(tmp_path / "nats")) as server:
        yield server


def test_messages_are_those_that_clients_know(server: NatsServer) -> None:
    """What clients of 0.1.0 sent is accepted, and each answer is valid by the schema of 0.1.0."""
    said = conversation()["messages"]
    text_of_schema = (FIXTURE / "messages.schema.json").read_text()
    # The only difference: cursors have a time as well. Clients send them back as they are.
    assert CURSOR_0_1_0 in text_of_schema
    schema = json.loads(text_of_schema.replace(CURSOR_0_1_0, json.dumps(CURSOR_PATTERN)))
    validator = jsonschema.Draft202012Validator(schema)
    events = jsonschema.Draft202012Validator(json.loads((FIXTURE / "events.schema.json").read_text()))

    async def receive(socket: ClientConnection) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            message: dict[str, Any] = json.loads(await socket.recv())
        validator.validate(message)
        for item in message.get("events", ()):
            events.validate(item["event"])
        return message

    async def repeat(relay: Relay) -> None:
        sockets = [index for index, (kind, _) in enumerate(said) if kind == "connected"]
        for start, end in zip(sockets, [*sockets[1:], len(said)], strict=True):
            url = f"{relay.ws_url}{said[start][1]}"
            expected, received = Counter[str](), Counter[str]()
            async with patiently(url, subprotocols=[Subprotocol("tickertape.v1")]) as socket:
                for kind, text in said[start + 1 : end]:
                    if kind == "sent":
                        await socket.send(text)
                        continue
                    message = json.loads(text)
                    expected.update(items(message))
                    if "events" in message:
                        continue
                    # Events may come in other batches, and heartbeats at other times.
                    answer = await receive(socket)
                    while answer["type"] != message["type"]:
                        received.update(items(answer))
                        answer = await receive(socket)
                    assert comparable(answer) == comparable(message)
                while expected - received:
                    received.update(items(await receive(socket)))

    validator.check_schema(schema)
    with Relay(server.url) as relay:
        run(repeat(relay))


def items(message: dict[str, Any]) -> list[str]:
    """Return the events of a message, as text, with the type of the message."""
    return [json.dumps([message["type"], item]) for item in message.get("events", ())]


def comparable(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message without what differs between two relays, and two sessions."""
    kept = {key: value for key, value in message.items() if key not in {"relay", "session", "limits"}}
    if "cursor" in kept:
        # Since 0.1.0 a cursor also has the time of its message; clients do not look into it.
        kept["cursor"] = "-".join(kept["cursor"].split("-")[:2])
    return kept


def test_the_npm_package(server: NatsServer, tmp_path: Path) -> None:
    """The npm package of 0.1.0 continues from a cursor of 0.1.0, follows live, and survives a restart."""
    node = shutil.which("node")
    if node is None or not NODE_MODULES.is_dir():
        pytest.skip("needs Node.js and the packages of the client; 'make typescript' installs them")
    with tarfile.open(FIXTURE / "client.tgz") as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "program.mjs").write_text(PROGRAM)
    epoch = conversation()["last"].split("-")[0]
    with Relay(server.url) as relay:
        program = subprocess.Popen(
            [node, "program.mjs", relay.ws_url, str(NODE_MODULES.parent), f"{epoch}-60"],
            cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        seen: list[Any] = []

        def until_logged(text: str) -> None:
            assert program.stdout is not None
            while not seen or seen[-1][0] != "log" or seen[-1][1][1] != text:
                received = program.stdout.readline()
                assert received, seen
                seen.append(json.loads(received))

        async def say(text: str) -> None:
            async with jetstream(server.url) as js:
                await publish(js, status("new"))
                await publish(js, line(text))

        try:
            until_logged("line 29")
            run(say("live"))
            until_logged("live")
            assert ["status", ["gateway.status.ctp.new", "HEALTHY"]] in seen
            relay.kill()
            relay.start()
            run(say("after the restart"))
            until_logged("after the restart")
        finally:
            program.kill()
            program.communicate(timeout=PATIENCE)
    sequences = [value[0] for kind, value in seen if kind == "log"]
    assert sequences == sorted(set(sequences)), "each event once, in order"
    assert sequences[0] > 60
    assert not [one for one in seen if one[0] == "gap"]
