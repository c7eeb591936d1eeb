"""The recipes of ``examples/``, each run as it is written by its program; the event is read on a WebSocket.

No package registry of CI has these programs as packages, except Python: a test whose program is not installed
is skipped. docs/recipes.md says which ones have been run.
"""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.clients.feed_client import FeedClient, connection, follow, run
from tests.support.clients.shipped import listening
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, command, environment
from tests.support.servers.deployed_nats import deployed
from tests.support.servers.nats_server import NatsServer

EXAMPLES = ROOT / "examples"
SOURCE = "risk.eu ~+é"
SUBJECT = "log.warn.risk=2Eeu=20=7E=2B=C3=A9"
MESSAGE = 'margin <call> "7" {{.}} $HOME'
TIME = "2026-03-02T10:30:45.123Z"
LINES = (
    {"time": TIME, "level": "warning", "logger": SOURCE, "message": MESSAGE, "account": 7},
    {"time": "2026-03-02T10:30:46Z", "level": "fatal", "logger": "risk", "message": "second"},
    {"time": "2026-03-02T10:30:46Z", "message": "defaults"},
)
"""Lines of a JSON log."""

NO_EVENTS = b"""no JSON
[1]
{"level": "info", "logger": "risk", "message": "no time"}
{"time": "2026-03-02T10:30:46Z", "level": "info", "logger": "risk"}
"""
"""Lines that are no events, and are not published."""

FEW_PERMISSIONS = """
accounts { A: { jetstream: enabled, users: [
  {user: tests, password: a}
  {user: telegraf, password: b, permissions: {
    publish: ["log.>", "$JS.API.STREAM.INFO.EVENTS"], subscribe: ["_INBOX.>"]}}
]}}
"""
"""Users of a server: the one of this test, and Telegraf's as in docs/recipes.md."""


@pytest.fixture
def relay(nats_server: NatsServer) -> Iterator[Relay]:
    """Run a relay with a server of its own."""
    with Relay(nats_server.url) as relay:
        yield relay


@pytest.fixture
def app_log(tmp_path: Path) -> Path:
    """Write a JSON log; the lines that are no events come first."""
    path = tmp_path / "app.json"
    path.write_bytes(NO_EVENTS + b"".join(orjson.dumps(line) + b"\n" for line in LINES))
    return path


def needs(*programs: str) -> None:
    """Skip a test whose programs are not installed."""
    absent = [program for program in programs if shutil.which(program) is None]
    if absent:
        pytest.skip(f"needs {', '.join(absent)}; see docs/recipes.md")


def finish(
    arguments: Sequence[str | Path], relay: Relay, folder: Path, stdin: bytes = b"", **env: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a program until it ends."""
    return subprocess.run(
        arguments, input=stdin, env=environment(**{"NATS_URL": relay.nats_url, **env}), cwd=folder,
        capture_output=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def running(
    arguments: Sequence[str | Path], env: Mapping[str, str], folder: Path
) -> AsyncIterator[None]:
    """Run a program that does not end by itself; its output is in ``output.txt``."""
    with (folder / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            arguments, env=environment(**env), cwd=folder, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output,
        )  # fmt: skip
    try:
        yield
    except TimeoutError as error:
        error.add_note((folder / "output.txt").read_text(errors="replace"))
        raise
    finally:
        process.terminate()
        process.wait()


def items(client: FeedClient) -> list[tuple[str, dict[str, Any]]]:
    """Return the subject and body of each event received."""
    return [(i.subject, i.event) for m in client.messages if m.type == "events" for i in m.events]


def published(relay: Relay, count: int, action: Callable[[], None]) -> list[tuple[str, dict[str, Any]]]:
    """Return the subject and body of the events that an action publishes."""

    async def scenario() -> list[tuple[str, dict[str, Any]]]:
        async with follow(relay.ws_url) as client:
            action()
            await client.events(count)
            return items(client)

    return run(scenario())


def test_nats_cli_publishes_a_log_event_once(relay: Relay, tmp_path: Path) -> None:
    """An event with any source and text is stored once per id; a wrong level is rejected."""
    needs("nats", "jq")
    script = EXAMPLES / "nats-cli" / "log.sh"

    def act() -> None:
        for message, msg_id in ((MESSAGE, "a"), (MESSAGE, "a"), ("second", "b")):
            done = finish(["sh", script, "warn", SOURCE, message, msg_id], relay, tmp_path)
            assert done.returncode == 0, done.stderr
        rejected = finish(["sh", script, "loud", SOURCE, MESSAGE], relay, tmp_path)
        assert rejected.returncode == 2
        assert b"level 'loud'" in rejected.stderr

    found = published(relay, 2, act)
    assert [(s, e["level"], e["source"], e["message"]) for s, e in found] == [
        (SUBJECT, "WARN", SOURCE, MESSAGE),
        (SUBJECT, "WARN", SOURCE, "second"),
    ]


def test_nats_cli_reports_what_is_not_stored(relay: Relay, nats_server: NatsServer, tmp_path: Path) -> None:
    """Without a server, the script fails."""
    needs("nats", "jq")
    script = EXAMPLES / "nats-cli" / "log.sh"
    nats_server.kill()
    done = finish(["sh", script, "warn", "risk", MESSAGE], relay, tmp_path)
    assert done.returncode == 1


def test_nats_cli_uses_the_shipped_user(tmp_path: Path) -> None:
    """The script publishes as the user `publisher` of deploy/nats, with the variables of the page."""
    needs("nats", "jq")
    with deployed(tmp_path) as nats:
        nats.apply()
        access = nats.access("publisher")
        assert access.password_file is not None
        env = {
            "NATS_URL": nats.url, "NATS_USER": "publisher", "NATS_INBOX_PREFIX": access.inbox_prefix,
            "NATS_PASSWORD": Path(access.password_file).read_text().strip(),
        }  # fmt: skip
        done = subprocess.run(
            ["sh", EXAMPLES / "nats-cli" / "log.sh", "warn", "risk", MESSAGE],
            env=environment(**env), cwd=tmp_path, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert nats.violations == []


def test_nats_cli_publishes_a_status(relay: Relay, tmp_path: Path) -> None:
    """A status of a gateway whose id has a dot is delivered."""
    needs("nats", "jq")
    script = EXAMPLES / "nats-cli" / "gateway-status.sh"

    def act() -> None:
        arguments = ["ctp", "ctp.main", "HEALTHY", "UNHEALTHY", "no heartbeat"]
        done = finish(["sh", script, *arguments], relay, tmp_path)
        assert done.returncode == 0, done.stderr

    ((subject, event),) = published(relay, 1, act)
    assert subject == "gateway.status.ctp.ctp=2Emain"
    assert (event["current_status"], event["metadata"]) == ("UNHEALTHY", {"reason": "no heartbeat"})


def test_telegraf_publishes_lines_and_metrics(relay: Relay, app_log: Path, tmp_path: Path) -> None:
    """Telegraf publishes each line of a log, and a metric."""
    needs("telegraf")
    config = EXAMPLES / "telegraf" / "telegraf.conf"
    env = {"NATS_URL": relay.nats_url, "APP_LOG": str(app_log)}

    async def scenario() -> dict[str, dict[str, Any]]:
        async with (
            follow(relay.ws_url) as client,
            running(["telegraf", "--config", config], env, tmp_path),
        ):
            await client.until(lambda: len({subject for subject, _ in items(client)}) == 4)
            return dict(items(client))

    found = run(scenario())
    first = found[SUBJECT]
    assert (first["level"], first["message"], first["timestamp"]) == ("WARN", MESSAGE, TIME)
    assert found["log.critical.risk"]["level"] == "CRITICAL"
    assert found["log.info.telegraf"]["message"] == "defaults"
    metric = found["log.debug.telegraf"]
    assert metric["message"] == "mem"
    assert metric["metadata"]["fields"]["total"] > 0


def test_telegraf_waits_for_nats_with_few_permissions(app_log: Path, tmp_path: Path) -> None:
    """Telegraf publishes what it read while NATS was down, as a user with the permissions of the page."""
    needs("telegraf")
    config = EXAMPLES / "telegraf" / "telegraf.conf"

    async def scenario(server: NatsServer) -> list[str]:
        address = server.url.partition("//")[2]
        async with listening(f"nats://tests:a@{address}") as shipped:
            env = {"APP_LOG": str(app_log), "NATS_URL": f"nats://telegraf:b@{address}"}
            async with running(["telegraf", "--config", config], env, tmp_path):
                while "defaults" not in shipped.messages:
                    await shipped.until(len(shipped.events) + 1)
                server.kill()
                with app_log.open("ab") as file:
                    file.write(orjson.dumps({**LINES[0], "message": "during the outage"}) + b"\n")
                server.start()
                while "during the outage" not in shipped.messages:
                    await shipped.until(len(shipped.events) + 1)
                return shipped.messages

    with NatsServer(tmp_path / "nats", config=FEW_PERMISSIONS) as server:
        found = run(scenario(server))
        assert {MESSAGE, "second", "defaults"} <= set(found)
        assert "Violation" not in server.log


def test_connect_maps_lines(relay: Relay, app_log: Path, tmp_path: Path) -> None:
    """Redpanda Connect maps each line of a log to a subject, an id and an event that clients receive.

    Its core can be built without the output for NATS, which this test replaces by a client of NATS.
    """
    program = next((name for name in ("redpanda-connect", "benthos") if shutil.which(name)), None)
    if program is None:
        pytest.skip("needs redpanda-connect or benthos; see docs/recipes.md")
    written = (EXAMPLES / "redpanda-connect" / "connect.yaml").read_text()
    recipe, separator, output = written.partition("\noutput:\n")
    assert separator
    assert 'subject: ${! meta("subject") }' in output
    assert 'Nats-Msg-Id: ${! meta("msg_id") }' in output
    mapping = 'root = {"subject": meta("subject"), "id": meta("msg_id"), "event": this}'
    config = tmp_path / "connect.yaml"
    config.write_text(f"{recipe}\noutput:\n  stdout: {{}}\n  processors:\n    - mapping: '{mapping}'\n")
    done = finish([program, "-c", config], relay, tmp_path, APP_LOG=str(app_log))
    mapped = [orjson.loads(line) for line in done.stdout.splitlines()]
    assert len({item["id"] for item in mapped}) == len(LINES), done.stderr

    async def scenario() -> list[tuple[str, dict[str, Any]]]:
        async with follow(relay.ws_url) as client, connection(relay.nats_url) as nats:
            for item in mapped:
                headers = {"Nats-Msg-Id": item["id"]}
                await nats.jetstream().publish(item["subject"], orjson.dumps(item["event"]), headers=headers)
            await client.events(len(LINES))
            return items(client)

    found = run(scenario())
    subject, event = found[0]
    assert [subject for subject, _ in found[1:]] == ["log.critical.risk", "log.info.redpanda-connect"]
    assert subject == SUBJECT
    assert event == {
        "event_type": "system_log", "timestamp": TIME, "level": "WARN", "source": SOURCE, "message": MESSAGE,
        "metadata": {"account": 7},
    }  # fmt: skip


def test_what_fluent_bit_writes_is_shipped(relay: Relay, tmp_path: Path) -> None:
    """The command behind the pipe reads the form that Fluent Bit gives to a line."""
    recipe = (EXAMPLES / "fluent-bit" / "fluent-bit.yaml").read_text()
    assert "| tickertape ship - --format json\n" in recipe
    record = {"timestamp": "2026-03-02T10:30:45.123000Z", "level": "warning", "logger": SOURCE,
              "message": MESSAGE, "account": 7}  # fmt: skip

    def act() -> None:
        state = ["--nats-url", relay.nats_url, "--state-dir", str(tmp_path / "state")]
        shipper = command("ship", "-", "--format", "json", *state)
        done = finish(shipper, relay, tmp_path, orjson.dumps(record) + b"\n")
        assert done.returncode == 0, done.stderr

    found = dict(published(relay, 1, act))
    event = found[SUBJECT]
    assert (event["level"], event["source"], event["message"]) == ("WARN", SOURCE, MESSAGE)
    assert event["metadata"] == {"account": 7}


def test_cloudevents_are_published_once(relay: Relay, tmp_path: Path) -> None:
    """A CloudEvent becomes a log event, a repeated one is stored once, and an invalid one is reported."""
    first = {
        "specversion": "1.0", "id": "1", "source": "https://desk.example/risk", "type": "margin.call",
        "time": TIME, "severitytext": "warning", "data": {"message": MESSAGE, "account": 7},
    }  # fmt: skip
    second = {"specversion": "1.0", "id": "1", "source": "/oms", "type": "order.rejected",
              "severitynumber": 18, "data": {"order": "a-1"}}  # fmt: skip
    lines = [first, first, {"id": "no source"}, {**second, "severitytext": "loud"}, second]
    script = EXAMPLES / "cloudevents" / "publish_cloudevents.py"

    def act() -> None:
        stdin = b"".join(orjson.dumps(line) + b"\n" for line in lines) + b"[]\nno JSON\n"
        done = finish([sys.executable, script], relay, tmp_path, stdin, PATH=os.environ["PATH"])
        assert done.returncode == 1
        reported = done.stderr.decode().splitlines()
        assert [line.partition(":")[0] for line in reported if line.startswith("line ")] == [
            "line 3", "line 4", "line 6", "line 7",
        ]  # fmt: skip

    (subject, event), (other, rejected) = published(relay, 2, act)
    assert (subject, other) == ("log.warn.risk", "log.error.oms")
    assert (event["message"], event["timestamp"]) == (MESSAGE, TIME)
    assert event["metadata"] == {"cloudevent": first}
    assert (rejected["level"], rejected["message"]) == ("ERROR", "order.rejected")
