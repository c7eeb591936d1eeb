"""No output of any command lets its data control or deceive a terminal; JSON keeps its value.

Each row of ``SCENES`` calls a command such that data from elsewhere appears in its output: from files, file
names, arguments, the environment, events, headers and responses.
"""

import asyncio
import base64
import io
import json
import logging
import re
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import orjson
import pytest
from tickertape.contracts.events import SystemLog

import tickertape.cli.main as cli
from tests.support.clients.poison import Message, RawPublisher
from tests.support.deceptive import MARKUP, TEXT, UNDECODABLE, deceptive
from tests.support.programs.relay_process import Relay, eventually
from tests.support.servers.nats_server import NatsServer

BAD = TEXT.replace("\0", "") + UNDECODABLE
"""Argument, which cannot contain NUL."""

NAME = "\x1b\x9b\u202e\u2066\u200b\u2028\x7f\ue000\udc80[red]行"
"""File name; the whole text would be too long."""

COMMANDS = dict(cli.COMMANDS)


@dataclass
class Place:
    """Surroundings of a scene.

    Attributes:
        nats: URL of NATS.
        folder: folder whose name is deceptive.
        raw: publisher of arbitrary messages.
        monkeypatch: for the environment and standard input.
    """

    nats: str
    folder: Path
    raw: RawPublisher
    monkeypatch: pytest.MonkeyPatch

    def write(self, text: str | bytes) -> str:
        """Write a file with a deceptive name, and return its path."""
        path = self.folder / f"{NAME}.log"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))
        return str(path)

    def stdin(self, data: bytes) -> None:
        """Set standard input."""
        self.monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def log_event(**fields: Any) -> bytes:
    """Return a log event with deceptive text."""
    event = SystemLog(level="INFO", message=TEXT, source="s", metadata={TEXT: TEXT})
    return orjson.dumps({**orjson.loads(event.encode()), **fields})


def encoded(value: object) -> str:
    """Encode a part of a token."""
    return base64.urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


@contextmanager
def answering(body: bytes, status: int = 503) -> Iterator[int]:
    """Run an HTTP server with one response; yield its port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check_live(place: Place) -> None:
    """Probe a server that is not a relay."""
    with answering(TEXT.encode()) as port:
        assert cli.main(["check", "--ready", "--ops-port", str(port)]) == 1


def rejected(place: Place) -> None:
    """List and replay dead letters whose subject, reason and message id are deceptive."""
    assert cli.main(["streams", "apply", "--nats-url", place.nats]) == 0
    text = "".join(character for character in TEXT if character not in "\r\n").encode()
    block = b"NATS/1.0\r\nTickertape-Sequence: %s\r\nTickertape-Reason: %s\r\nTickertape-Subject: %s\r\n\r\n"
    headers = block % (b"7", text, text)
    place.raw.publish(Message(b"rejected.log.info.\x1b[2J\xff\xe2\x80\xae", log_event(), headers))
    place.raw.publish(Message(b"rejected.log.info.x", log_event(), block % (text, text, text)))
    for arguments, code in ((), 0), (("--replay", "7"), 1), (("--replay", "99"), 1):
        assert cli.main(["streams", "rejected", *arguments, "--nats-url", place.nats]) == code


def ship_status(place: Place) -> None:
    """Show the status of a shipper whose file names are deceptive."""
    assert cli.main(["streams", "apply", "--nats-url", place.nats]) == 0
    file = {"path": TEXT, "lag_bytes": 1, "lag_seconds": 1.0}
    health = {
        "event_type": "system_health", "event_version": "1", "timestamp": "2026-01-01T00:00:00.000Z",
        "component": "shipper", "instance": MARKUP, "status": "HEALTHY", "checks": {"by_file": [file]},
    }  # fmt: skip
    subject = f"system.health.shipper.{urllib.parse.quote('host')}"
    place.raw.publish(Message(subject.encode(), orjson.dumps({**health, "instance": "host"})))
    options = ["--status", "--nats-url", place.nats]

    def shown() -> bool:
        return cli.main(["ship", *options, "--host", "host"]) == 0

    eventually(shown, "LATEST has the status")
    assert cli.main(["ship", *options, "--host", BAD]) != 0


def dry_run(place: Place) -> None:
    """Report on a file, and print its events; a format file has deceptive names as well."""
    place.write(
        (TEXT.replace("\n", "") + "\n").encode() + b'\xff\x9b\x1b]0;x\x07\n{"msg":"\\u001b\\u202e"}\n'
    )
    (place.folder / f"{NAME}2.log").symlink_to(f"/nowhere/{NAME}")
    for more in ([], ["--json"]):
        assert cli.main(["ship", f"{place.folder.parent}/*/*.log", "--dry-run", "--once", *more]) == 0
    formats = place.folder / f"{NAME}.toml"
    for text in (
        f"[formats.{json.dumps(TEXT)}]",
        f"[formats.a]\n{json.dumps(TEXT)} = 1",
        f"{json.dumps(TEXT)} = 1",
    ):
        formats.write_text(text)
        assert cli.main(["ship", "x", "--format-file", str(formats)]) == 2
        assert cli.main(["check", "--shipper-format-file", str(formats)]) == 1
    cli.main(["ship", f"{place.folder}/absent*{NAME}", "--dry-run", "--once"])


def tail(place: Place) -> None:
    """Print events as text and as JSON, and a relay's rejection."""
    from tickertape.cli.tail import command
    from tickertape.cli.tail.settings import TailSettings

    async def show(*options: str) -> None:
        view = command._Tail(cli.parse(TailSettings, list(options)), None)
        for kind in ("system_log", TEXT):
            item = {"seq": 1, "subject": f"log.{TEXT}", "event": orjson.loads(log_event(event_type=kind))}
            view._show({"type": "events", "events": [item], "cursor": "e-1"})
        view._show({"type": "gap", "dropped": TEXT, "reason": TEXT, "from": TEXT, "to": TEXT})
        view._show({"type": "error", "code": TEXT, "message": BAD, "ref": TEXT})

    asyncio.run(show())
    asyncio.run(show("--json"))
    with answering(TEXT.encode(), 404) as port:
        assert cli.main(["tail", "--url", f"ws://127.0.0.1:{port}/ws"]) == 1
    assert cli.main(["tail", "--url", "wss://127.0.0.1:1/ws", "--ca", str(place.folder / NAME)]) == 1


def publish(place: Place) -> None:
    """Publish events whose subject or fields are invalid."""
    options = ["--nats-url", place.nats, "--deadline", "0.1"]
    assert cli.main(["publish", f"log.info.{BAD}", "{}", *options]) == 2
    assert cli.main(["publish", "log.info.x", BAD, *options]) == 1
    assert cli.main(["publish", "-", log_event(source=TEXT, level=TEXT).decode(), *options]) == 1
    assert cli.main(["publish", "log.info.x", log_event(**{TEXT: 1}).decode(), *options]) in (0, 1)


def monitor(place: Place) -> None:
    """Read a file with deceptive names, keys and values, and silence a gateway."""
    for text in (
        f"gateways: [{{id: x, type: {json.dumps(TEXT)}, probes: []}}]", f"{json.dumps(TEXT)}: 1", TEXT,
        "gateways: [{id: a, type: b, group: c, probes: [{kind: http, url: " + json.dumps(TEXT) + "}]}]",
    ):  # fmt: skip
        assert cli.main(["monitor", "--gateways", place.write(text)]) == 2
        assert cli.main(["check", place.write(text)]) == 1
        assert cli.main(["check", "--json", place.write(text)]) == 1
    assert cli.main(["monitor", "silence", BAD, "--reason", BAD, "--nats-url", place.nats]) == 2
    assert cli.main(["monitor", "silence", BAD, "--reason", "x", "--nats-url", place.nats]) in (0, 1)
    assert cli.main(["monitor", "silence", f"ctp/{BAD}", "--nats-url", place.nats]) in (0, 1)


def token(place: Place) -> None:
    """Print a foreign token, and use files with deceptive names."""
    claims = {"sub": TEXT, "exp": TEXT, TEXT: TEXT, "tickertape": {"subjects": [TEXT]}}
    text = f"{encoded({'alg': 'HS256', 'kid': TEXT})}.{encoded(claims)}.x"
    assert cli.main(["token", "inspect", text]) == 1
    assert cli.main(["token", "inspect", BAD]) == 1
    mint = ["token", "mint", "--jwt-algorithm", "ES256", "--subjects", ">", "--key-file"]
    assert cli.main([*mint, str(place.folder / NAME)]) == 1
    assert cli.main([*mint, place.write(TEXT)]) == 1


def report(place: Place) -> None:
    """Print a report, and a relay's rejection."""
    times = {"up_s": 1.0, "down_s": 1.0, "planned_s": 0.0, "unknown_s": 0.0, "incidents": 1}
    gateway = {"gateway_type": TEXT, "gateway_id": TEXT, "status": TEXT}
    incident = {"start": TEXT, "end": TEXT, "duration_s": 1.0, "error": TEXT, "planned": False}
    recovery = {"recovery": {"phase": TEXT, "attempts": 1}}
    page = {
        "since": TEXT, "until": TEXT, "more": False, "count": 1,
        "gateways": [{**gateway, "availability": {"range": {**times, "availability": 0.5}}}],
        "incidents": [{**gateway, **incident, **recovery}],
    }  # fmt: skip
    for form in ([], ["--csv"], ["--json"]):
        with answering(orjson.dumps(page), 200) as port:
            assert cli.main(["report", "--url", f"ws://127.0.0.1:{port}/ws", *form]) == 0
    with answering(orjson.dumps({"code": TEXT, "message": TEXT}), 401) as port:
        assert cli.main(["report", "--url", f"ws://127.0.0.1:{port}/ws"]) == 1
    assert cli.main(["report", "--since", BAD]) == 2


def serve(place: Place) -> None:
    """Start a relay with deceptive file names."""
    for option in ("--log-level-file", "--tls-cert", "--jwt-key-file", "--nats-creds"):
        arguments = ["serve", option, place.write(TEXT), "--nats-url", place.nats, "--port", "0"]
        if option == "--tls-cert":
            arguments += ["--tls-key", place.write(TEXT)]
        if option == "--jwt-key-file":
            arguments += ["--auth", "jwt", "--jwt-algorithm", "ES256"]
        assert cli.main(arguments) != 0


def check(place: Place) -> None:
    """Check settings with deceptive values, as text and JSON."""
    options = ["--nats-url", place.nats, "--ops-port", "0", "--port", "0", "--data-dir", place.write("")]
    for more in ([], ["--json"]):
        cli.main(["check", *options, *more, "--token-file", place.write(TEXT)])


def demo(place: Place) -> None:
    """Start the demo in a folder that is a file."""
    assert cli.main(["demo", "--data-dir", place.write("")]) == 1


def schema(place: Place) -> None:
    """Print the contract, which contains no data of others."""
    for form in ("events", "messages", "asyncapi", "typescript"):
        assert cli.main(["schema", form]) == 0


def show_config(place: Place) -> None:
    """Show settings whose names and values come from a file."""
    assert (
        cli.main(["config", "show", "serve", "--config", place.write(f"log_ship = {json.dumps(BAD)}")]) == 2
    )
    assert cli.main(["config", "show", "serve", "--config", place.write(f"{json.dumps(BAD)} = 1")]) == 2
    assert cli.main(["config", "show", "tail", "--cursor", BAD]) == 0


def completion(place: Place) -> None:
    """Print a script, which contains no data of others."""
    assert cli.main(["completion", "bash"]) == 0


SCENES: dict[str, tuple[Callable[[Place], None], ...]] = {
    "check": (check, check_live, monitor),
    "completion": (completion,),
    "config": (show_config,),
    "demo": (demo,),
    "monitor": (monitor,),
    "publish": (publish,),
    "report": (report,),
    "schema": (schema,),
    "serve": (serve,),
    "ship": (dry_run, ship_status),
    "streams": (rejected,),
    "tail": (tail,),
    "token": (token,),
}


@pytest.fixture
def place(nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return the surroundings; logging is restored afterwards."""
    root = logging.getLogger()
    before = root.handlers, root.level
    folder = tmp_path / NAME
    folder.mkdir()
    monkeypatch.setenv("TICKERTAPE_STATE_DIR", str(folder / "state"))
    with RawPublisher(nats_server.url) as raw:
        yield Place(nats_server.url, folder, raw, monkeypatch)
    root.handlers, root.level = before


def test_every_command_has_a_scene() -> None:
    """A new command needs a row here, with all the data that it prints."""
    assert SCENES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("scene", sorted({one for scenes in SCENES.values() for one in scenes}, key=str))
def test_data_cannot_deceive_a_terminal(
    scene: Callable[[Place], None], place: Place, capfd: pytest.CaptureFixture[str]
) -> None:
    """Neither standard output nor standard error contains a deceptive character, and JSON is valid."""
    scene(place)
    out, err = capfd.readouterr()
    assert out or err
    assert deceptive(out) == set()
    assert deceptive(err) == set()
    for line in re.findall(r"^\{.*\}$", out, re.MULTILINE):
        json.loads(line)


def test_json_keeps_the_value(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Programs that parse the output of ``tail --json`` receive each event unchanged."""
    tail(place)
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert [item["event"]["message"] for item in printed] == [TEXT, TEXT]
    assert printed[0]["event"]["metadata"] == {TEXT: TEXT}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_log_of_a_relay(log_format: str, nats_url: str) -> None:
    """Paths, queries, headers, subprotocols and messages of clients appear escaped in the log."""
    raw = "".join(c for c in TEXT if c not in "\r\n\0").encode()
    latin = "".join(map(chr, (*range(1, 9), 0x1B, 0x7F, 0x85, 0x9B, 0x9D, 0xAD))).encode("latin-1")
    relay = Relay(nats_url, "--log-level", "debug", TICKERTAPE_LOG_FORMAT=log_format)
    with relay:
        for text in (urllib.parse.quote(raw).encode(), b"/ws?subjects=%1b%5b%e2%80%ae", b"/%c2%9b%ff"):
            for name in (b"X-Forwarded-For", b"Origin", b"User-Agent", b"Sec-WebSocket-Protocol", b"Host"):
                for value in (raw, latin):
                    connection = HTTPConnection(*relay.host_port)
                    connection.connect()
                    head = b"GET /%b HTTP/1.1\r\nHost: x\r\n%b: %b\r\n" % (text.lstrip(b"/"), name, value)
                    head += b"Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n"
                    connection.sock.sendall(head)
                    connection.sock.recv(1000)
                    connection.close()
        asyncio.run(close_deceptively(relay.ws_url))
        relay.stop()
        lines = [*relay.lines, *relay.log]
    assert deceptive("".join(lines)) == set()
    if log_format == "json":
        assert all(json.loads(line) for line in relay.log)


async def close_deceptively(url: str) -> None:
    """Send messages with deceptive text, and close with a deceptive reason."""
    from websockets.asyncio.client import connect

    async with connect(url, origin=None, user_agent_header="\x9b") as socket:
        await socket.send(json.dumps({"type": TEXT, TEXT: TEXT}))
        await socket.recv()
        await socket.close(1000, "\x1b[2J\u202e\u2028")
