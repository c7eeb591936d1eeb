"""Denied permissions: every program names user and subject, and works again when NATS grants them.

One server has a user for each row of the tables, who may do everything but one thing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats as nats_py
import pytest
from nats.aio.client import Client
from tickertape.producers.sdk.errors import PublishDenied
from tickertape.producers.shipper.sinks.atomic import AtomicSink
from tickertape.producers.shipper.sinks.sink import Checkpoint, OutgoingEvent

from tests.support.clients.feed_client import follow, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer
from tickertape import Publisher, SyncPublisher, SystemLog, TickertapeHandler
from tickertape.cli.main import main
from tickertape.errors import EXIT_DENIED
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.client import SafeClient
from tickertape.nats.credentials import Access
from tickertape.nats.errors import PermissionDenied
from tickertape.nats.jetstream_api import stream_info
from tickertape.nats.streams import apply
from tickertape.nats.wire import denial_tracker

WITHIN = 4.0
"""Seconds for a report: less than every timeout that it replaces."""

STATUS = '{"gateway_id":"a","gateway_type":"ctp","current_status":"HEALTHY","previous_status":"UNKNOWN"}'

COMMANDS = {
    "publish": (["publish", "log.info.x", '{"message":"m"}'], "log.info.x"),
    "publish-status": (["publish", "gateway.status.ctp.b", STATUS.replace('"a"', '"b"')], "gateway.status.>"),
    "show": (["streams", "show"], "$JS.API.STREAM.INFO.*"),
    "apply": (["streams", "apply", "--audit"], "$JS.API.STREAM.CREATE.AUDIT"),
    "rejected": (["streams", "rejected"], "$JS.API.CONSUMER.CREATE.REJECTED"),
    "replay": (["streams", "rejected", "--replay", "1"], "$JS.API.CONSUMER.CREATE.REJECTED"),
    "audit": (["streams", "audit"], "$JS.API.STREAM.INFO.AUDIT"),
    "ship-status": (["ship", "--status"], "$JS.API.DIRECT.GET.HEALTH.>"),
    "silence": (["monitor", "silence", "a", "--for", "1m"], "watchdog.silenced.>"),
    "silence-read": (["monitor", "silence", "a", "--for", "1m"], "$JS.API.DIRECT.GET.LATEST.>"),
    "silence-audit": (["monitor", "silence", "a", "--for", "1m", "--audit"], "audit.silenced.>"),
    "serve-consumer": (["serve", "--port", "0", "--ops-port", "0"], "$JS.API.CONSUMER.CREATE.EVENTS"),
    "serve-info": (["serve", "--port", "0", "--ops-port", "0"], "$JS.API.STREAM.INFO.*"),
    "serve-workers": (["serve", "--port", "0", "--ops-port", "0", "--workers", "2"], "$JS.API.STREAM.INFO.*"),
    "serve-states": (["serve", "--port", "0", "--ops-port", "0"], "$JS.API.CONSUMER.CREATE.LATEST"),
    "monitor-info": (["monitor", "--gateways", "{gateways}"], "$JS.API.STREAM.INFO.EVENTS"),
    "monitor-read": (["monitor", "--gateways", "{gateways}"], "$JS.API.DIRECT.GET.LATEST.>"),
    "ship-info": (["ship", "{log}", "--once", "--state-dir", "{state}"], "$JS.API.STREAM.INFO.*"),
}
"""Commands that end when they are denied something, and the subject that their user may not publish to."""

GATEWAYS = "gateways: [{id: a, type: ctp, probes: [{kind: tcp, address: '127.0.0.1:1'}]}]\n"


def config(denied: dict[str, tuple[str, str]]) -> str:
    """Return a server's users: ``all``, and each of the others without one permission."""
    users = [
        f'{{ user: "{user}", password: secret, permissions: {{ '
        f"publish: {{ deny: [{_list(subject if action == 'publish' else '')}] }}, "
        f"subscribe: {{ deny: [{_list(subject if action == 'subscribe' else '')}] }} }} }}"
        for user, (action, subject) in denied.items()
    ]
    return f"authorization {{ users: [ {{ user: all, password: secret }}, {', '.join(users)} ] }}"


def _list(subject: str) -> str:
    return f'"{subject}"' if subject else ""


DENIED = {
    **{name: ("publish", subject) for name, (_, subject) in COMMANDS.items()},
    "no-inbox": ("subscribe", "_INBOX.>"),
    "no-log": ("publish", "log.error.>"),
    "no-checkpoint": ("publish", "checkpoint.>"),
    "no-health": ("publish", "system.health.>"),
    "no-armed": ("publish", "watchdog.armed.>"),
    "no-topic": ("subscribe", "topic.>"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run the server with streams and the status of one gateway."""
    with NatsServer(tmp_path_factory.mktemp("nats"), config=config(DENIED)) as started:

        async def prepare() -> None:
            async with as_user(started, "all") as client:
                await apply(client, Names())

        asyncio.run(prepare())
        url = url_of(started, "all")
        assert main(["publish", "gateway.status.ctp.a", STATUS, "--nats-url", url]) == 0
        yield started


def url_of(server: NatsServer, user: str) -> str:
    """Return the address with a user's password."""
    return server.url.replace("//", f"//{user}:secret@")


def access(user: str) -> Access:
    """Return a user's credentials."""
    return Access(user=user, password="secret")


@asynccontextmanager
async def as_user(server: NatsServer, user: str) -> AsyncIterator[SafeClient]:
    """Connect as a user."""
    client = await connection.connect(server.url, name="test", access=access(user))
    try:
        yield client
    finally:
        await connection.close(client)


def grant(server: NatsServer, denied: dict[str, tuple[str, str]]) -> None:
    """Change the permissions while the server runs."""
    path = server.folder / "nats-server.conf"
    text = path.read_text()
    path.write_text(text[: text.index("authorization")] + config(denied))
    before = server.log.count("Reloaded server configuration")
    server.reload()
    deadline = time.monotonic() + PATIENCE
    while server.log.count("Reloaded server configuration") == before:
        assert time.monotonic() < deadline
        time.sleep(0.005)


async def until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_user_and_subject(
    server: NatsServer, name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command that may not do something ends immediately with the user, the subject and the fix."""
    (tmp_path / "gateways.yaml").write_text(GATEWAYS)
    (tmp_path / "app.log").write_text("one\n")
    files = {"gateways": tmp_path / "gateways.yaml", "log": tmp_path / "app.log", "state": tmp_path / "state"}
    arguments, subject = COMMANDS[name]
    began = time.monotonic()
    filled = [str(files[part[1:-1]]) if part[1:-1] in files else part for part in arguments]
    code = main([*filled, "--nats-url", url_of(server, name)])
    took = time.monotonic() - began
    output = "".join(capfd.readouterr())
    assert code == EXIT_DENIED
    assert f"NATS user '{name}' may not publish to \"{subject.rstrip('*>')}" in output, output
    assert "grant it publish permission as in deploy/nats/permissions.conf" in output
    assert "secret" not in output
    # The start of two interpreters has no bound.
    assert took < WITHIN or name == "serve-workers"


@pytest.mark.parametrize("arguments", [["streams", "show"], ["publish", "log.info.x", '{"message":"m"}']])
def test_a_command_names_its_denied_inbox(
    server: NatsServer, arguments: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    """Without replies a command cannot work, and names the option; a publisher stores nothing."""

    async def stored() -> int:
        async with as_user(server, "all") as client:
            info = await stream_info(client, "EVENTS")
            assert info is not None
            return int(info["state"]["last_seq"])

    before = asyncio.run(stored())
    began = time.monotonic()
    assert main([*arguments, "--nats-url", url_of(server, "no-inbox")]) == EXIT_DENIED
    assert time.monotonic() - began < WITHIN
    output = "".join(capfd.readouterr())
    assert "NATS user 'no-inbox' may not subscribe to \"_INBOX.>\"" in output
    assert "--nats-inbox-prefix" in output
    assert asyncio.run(stored()) == before


LINE = SystemLog(level="ERROR", message="m", source="x")


def test_a_publisher_raises_at_once(server: NatsServer) -> None:
    """The error of the SDK names the denied subject, and events of other subjects are stored meanwhile."""

    async def work() -> None:
        async with Publisher(server.url, access=access("no-log")) as publisher:
            tickets = [
                await publisher.submit(event.subject, event.encode())
                for level in ("ERROR", "INFO", "ERROR")
                for event in [SystemLog(level=level, message="m", source="x")]
            ]
            results = await asyncio.wait_for(asyncio.gather(*tickets, return_exceptions=True), WITHIN)
            first, stored, last = results
            for error in (first, last):
                assert isinstance(error, PublishDenied)
                assert (error.denied_subject, error.user) == ("log.error.x", "NATS user 'no-log'")
            assert not isinstance(stored, BaseException)

    run(work())


def test_a_publisher_without_asyncio_raises_at_once(server: NatsServer) -> None:
    """``SyncPublisher`` raises the same error, and the logging handler reports it in its own log."""
    began = time.monotonic()
    with SyncPublisher(server.url, access=access("no-log")) as publisher:
        with pytest.raises(PublishDenied, match="NATS user 'no-log' may not publish"):
            publisher.publish(LINE)
        assert time.monotonic() - began < WITHIN


def test_the_logging_handler_reports_it(server: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    """A program's own log says why its records are missing; the program is not disturbed."""
    handler = TickertapeHandler(server.url, source="x", access=access("no-log"))
    logger = logging.Logger("application")
    logger.addHandler(handler)
    logger.error("margin call")
    handler.flush()
    handler.close()
    assert "NATS user 'no-log' may not publish to \"log.error.x\"" in caplog.text


def test_a_client_of_the_caller_is_understood(server: NatsServer) -> None:
    """A nats-py client that the caller passes in records the violation, which is attributed as well."""

    async def work() -> None:
        client = await nats_py.connect(server.url, user="no-log", password="secret", error_cb=ignore)
        async with Publisher(client=client) as publisher:
            with pytest.raises(PublishDenied, match="may not publish to"):
                await asyncio.wait_for(publisher.publish(LINE), WITHIN)
        await client.close()

    async def ignore(_: Exception) -> None:
        pass

    run(work())


def test_a_message_without_acknowledgement_is_reported(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """What nothing waits for, such as a dead man's switch or a subscription, is logged once per subject."""

    async def work() -> None:
        async with Publisher(server.url, access=access("no-armed"), name="monitor") as publisher:
            client = await publisher.connected()
            for _ in range(5):
                await client.publish("watchdog.armed.ctp.a", b"{}")
            await client.flush()
        async with Publisher(server.url, access=access("no-topic"), name="monitor") as publisher:
            client = await publisher.connected()
            await client.subscribe("topic.a")
            await client.flush()

    run(work())
    assert caplog.text.count("NATS user 'no-armed' may not publish to \"watchdog.armed.ctp.a\"") == 1
    assert caplog.text.count("NATS user 'no-topic' may not subscribe to \"topic.a\"") == 1


EVENTS = [OutgoingEvent(f"log.{level}.x", b"{}", level) for level in ("info", "error", "warn")]


@pytest.mark.parametrize(
    ("user", "subject"), [("no-log", "log.error.x"), ("no-checkpoint", "checkpoint.host.")]
)
def test_a_batch_is_denied_as_a_whole(server: NatsServer, user: str, subject: str) -> None:
    """One denied message of an atomic batch is reported immediately; nothing is stored, and it is retried."""

    async def work() -> None:
        warnings: list[str] = []
        async with as_user(server, "all") as client:
            before = await stream_info(client, "EVENTS")
        async with as_user(server, user) as client:
            sink = AtomicSink(client, Names(), "host", warnings.append)
            commit = asyncio.create_task(sink.commit(EVENTS, Checkpoint(f"/{user}", count=1), 0))
            async with asyncio.timeout(WITHIN):
                while not warnings:
                    await asyncio.sleep(0.01)
            assert not commit.done()
            commit.cancel()
            await asyncio.gather(commit, return_exceptions=True)
        assert f"NATS user '{user}' may not publish to \"{subject}" in warnings[0]
        assert "no lines are lost" in warnings[0]
        async with as_user(server, "all") as client:
            after = await stream_info(client, "EVENTS")
        assert before is not None
        assert after is not None
        assert before["state"]["last_seq"] == after["state"]["last_seq"]

    run(work())


def test_permissions_that_change_are_noticed_and_heal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A reload that revokes permissions fails what waits; one that grants them again needs no restart."""
    monkeypatch.setattr(denial_tracker, "RESUBSCRIBE_INTERVAL", 0.05)
    with NatsServer(tmp_path, config=config({"u": ("publish", "none")})) as server:

        async def work() -> None:
            async with as_user(server, "all") as client:
                await apply(client, Names())
            async with (
                Publisher(server.url, access=access("u")) as publisher,
                as_user(server, "u") as client,
            ):
                await publisher.publish(LINE)
                assert await stream_info(client, "EVENTS")
                # The server ends the subscriptions to which replies and acknowledgements are sent.
                await asyncio.to_thread(grant, server, {"u": ("subscribe", "_INBOX.>")})
                with pytest.raises(PermissionDenied, match="subscribe"):
                    await asyncio.wait_for(stream_info(client, "EVENTS"), WITHIN)
                await until(lambda: not publisher.online)
                with pytest.raises(PublishDenied, match="subscribe"):
                    await asyncio.wait_for(publisher.publish(LINE), WITHIN)
                await asyncio.to_thread(grant, server, {"u": ("publish", "log.>")})
                await until(lambda: publisher.online and not client.denials.has_subscriptions)
                assert await stream_info(client, "EVENTS")
                with pytest.raises(PublishDenied, match="publish"):
                    await asyncio.wait_for(publisher.publish(LINE), WITHIN)
                await asyncio.to_thread(grant, server, {"u": ("publish", "none")})
                await publisher.publish(LINE)

        run(work())
    assert caplog.text.count('may not subscribe to "_INBOX.>"') <= 2


def test_a_running_relay_recovers(tmp_path: Path) -> None:
    """A relay whose permissions are revoked says so, and receives events again when they are granted."""
    with NatsServer(tmp_path, config=config({"u": ("publish", "none")})) as server:
        options = ["--nats-user", "u", "--nats-password", "secret"]
        with Relay(server.url, *options) as relay:
            grant(server, {"u": ("subscribe", "_INBOX.>")})
            relay.until_logged("NATS user 'u' may not subscribe to \"_INBOX.>\"")
            relay.until_logged("cannot receive events, retrying")
            grant(server, {"u": ("publish", "none")})
            relay.until_logged("receiving events again after")

            async def publish_and_follow() -> None:
                async with follow(relay.ws_url) as feed:
                    async with Publisher(server.url, access=access("all")) as publisher:
                        await publisher.publish(LINE)
                    await feed.until(lambda: any(message.type == "events" for message in feed.messages))

            run(publish_and_follow())
            reports = [line for line in relay.log if "may not subscribe" in line]
            assert len(reports) <= 4, reports


def test_no_reply_is_sent_to_a_request_of_a_denied_inbox(server: NatsServer) -> None:
    """While its inbox is denied, a client sends no request, because its effect could not be confirmed."""

    async def work() -> None:
        async with as_user(server, "no-inbox") as client, as_user(server, "all") as other:
            received: list[bytes] = []

            async def receive(message: object) -> None:
                received.append(b"")

            await other.subscribe("service", cb=receive)
            await other.flush()
            for _ in range(3):
                with pytest.raises(PermissionDenied):
                    await client.request("service", b"", timeout=WITHIN)
            await client.flush()
            await other.flush()
            assert len(received) <= 1
            assert isinstance(client, Client)

    run(work())
