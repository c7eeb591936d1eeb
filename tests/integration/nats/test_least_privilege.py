"""The deployment's NATS users: each program can do all of its work with its own user, and nothing else.

The permissions are those of ``deploy/nats`` itself.
"""

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from tests.support.clients.feed_client import FeedClient, follow, run
from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, Relay, command, environment, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.deployed_nats import SHIPPER, Deployed, ask, deployed
from tickertape.errors import EXIT_DENIED
from tickertape.names import Names
from tickertape.nats import streams

GATEWAY = """\
gateways:
  - id: {id}
    type: ctp
    interval: 200ms
    healthy_after: 1
    probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]
"""

CHECK = ("check", "--port", "0", "--ops-port", "0")


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[Deployed]:
    """Run the deployment's server without streams."""
    with deployed(tmp_path) as found:
        yield found


class Child:
    """A program that runs until it is stopped; its output is in ``said``."""

    def __init__(self, path: Path, *arguments: str) -> None:
        self._path = path
        with path.open("wb") as file:
            self._process = subprocess.Popen(
                command(*arguments), cwd=ROOT, env=environment(), stdout=file, stderr=file
            )

    @property
    def output(self) -> str:
        """Output so far."""
        return self._path.read_text()

    def until(self, text: str) -> None:
        """Wait until the output contains a text."""
        eventually(lambda: text in self.output, f"{text!r} is said")

    def reload(self) -> None:
        """Make the program reload its file (SIGHUP)."""
        self._process.send_signal(signal.SIGHUP)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the program, and return its exit code."""
        self._process.send_signal(number)
        return self._process.wait(PATIENCE)


@contextlib.contextmanager
def program(path: Path, *arguments: str) -> Iterator[Child]:
    """Start a program, and kill it at the end if it is still running."""
    child = Child(path, *arguments)
    try:
        yield child
    finally:
        child.end(signal.SIGKILL)


def statuses(feed: FeedClient, gateway: str) -> list[str]:
    """Return the statuses of a gateway received in snapshots and live."""
    items = [item for message in feed.messages for item in getattr(message, "events", ())]
    return [item.event["current_status"] for item in items if item.event.get("gateway_id") == gateway]


def texts(feed: FeedClient) -> list[str]:
    """Return the log lines received."""
    items = [item for message in feed.messages for item in getattr(message, "events", ())]
    return [item.event["message"] for item in items if item.event["event_type"] == "system_log"]


def test_the_product_works_with_least_privilege(nats: Deployed, tmp_path: Path) -> None:
    """Streams, feed, monitor, shipper, publisher, a kill and a rejected event cause no permission
    violation.
    """
    nats.command_apply()
    log, config = tmp_path / "app.log", tmp_path / "gateways.yaml"
    # Connections are never accepted: each probe of the monitor takes one place in the backlog.
    gateway = socket.create_server(("127.0.0.1", 0), backlog=4096)
    port = gateway.getsockname()[1]
    config.write_text(GATEWAY.format(id="a", port=port))
    relay = Relay(nats.url, *nats.options("relay"))
    arguments = ["--gateways", str(config), "--nats-url", nats.url, *nats.options("monitor")]
    ship = ["ship", str(log), "--once", "--host", "web1", "--state-dir", str(tmp_path / "state")]

    def done(user: str, *arguments: str) -> str:
        ended = run_command(*arguments, "--nats-url", nats.url, *nats.options(user))
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    async def in_thread(user: str, *arguments: str) -> str:
        return await asyncio.to_thread(done, user, *arguments)

    async def shipped(*lines: str) -> None:
        with log.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)
        await in_thread(SHIPPER, *ship)

    async def check(monitor: Child) -> None:
        async with follow(relay.ws_url) as feed:
            await feed.until(lambda: "HEALTHY" in statuses(feed, "a"))
            await shipped("one", "two")
            await in_thread("publisher", "publish", "log.info.service", '{"message":"three"}')
            await feed.until(lambda: set(texts(feed)) >= {"one", "two", "three"})
            cursor = feed.cursor
        relay.kill()
        await shipped("four")
        await asyncio.to_thread(relay.start)
        async with follow(relay.ws_url, cursor=cursor, mode="complete") as feed:
            await feed.until(lambda: "four" in texts(feed))
            assert texts(feed) == ["four"]
        async with follow(relay.ws_url, since="10m", mode="complete") as feed:
            await feed.until(lambda: "four" in texts(feed))
            assert sorted(texts(feed)) == ["four", "one", "three", "two"]
        async with nats.client(SHIPPER) as (client, _):
            seq = (await ask(client, "log.info.x", b"nonsense"))["seq"]
        async with nats.client("operator") as (client, _):
            while not (await streams.stream_info(client, "REJECTED") or {})["state"]["messages"]:
                await asyncio.sleep(0.02)
        assert f"{seq}  log.info.x  bad_json" in await in_thread("operator", "streams", "rejected")
        assert "all streams match the contract" in await in_thread("relay", *CHECK)
        assert "shipper of web1" in await in_thread(SHIPPER, "ship", "--status", "--host", "web1")

        async with follow(relay.ws_url) as feed:
            await in_thread("monitor", "monitor", "silence", "a", "--for", "5m", "--reason", "a test")
            await feed.until(lambda: len(statuses(feed, "a")) > 1)
            # Another gateway replaces the first, whose switch is disarmed.
            config.write_text(GATEWAY.format(id="b", port=port))
            await asyncio.to_thread(monitor.until, "confirm it with SIGHUP")
            monitor.reload()
            await feed.until(
                lambda: statuses(feed, "a")[-1] == "REMOVED" and "HEALTHY" in statuses(feed, "b")
            )
            async with nats.client("operator") as (client, _):
                while "watchdog.armed.ctp.a" in await armed(client):
                    await asyncio.sleep(0.05)
                assert "watchdog.armed.ctp.b" in await armed(client)
            await asyncio.to_thread(monitor.end, signal.SIGKILL)
            await feed.until(lambda: statuses(feed, "b")[-1] == "UNKNOWN")
            assert statuses(feed, "a")[-1] == "REMOVED"
            # A restarted monitor reads silences and the newest statuses.
            with program(tmp_path / "again.log", "monitor", *arguments) as again:
                await feed.until(lambda: statuses(feed, "b")[-1] == "HEALTHY")
                assert "may not" not in again.output

    with relay:
        with program(tmp_path / "monitor.log", "monitor", *arguments) as monitor:
            run(check(monitor), 5 * PATIENCE)
            assert "may not" not in monitor.output
        assert relay.stop() == 0
    gateway.close()
    assert nats.violations == []


async def armed(client: Client) -> dict[str, int]:
    """Return the subjects of switches that are armed or being disarmed."""
    answer = await ask(client, "$JS.API.STREAM.INFO.WATCHDOG", {"subjects_filter": "watchdog.armed.>"})
    found: dict[str, int] = answer["state"].get("subjects") or {}
    return found


def test_programs_wait_for_the_operator(nats: Deployed, tmp_path: Path) -> None:
    """Without streams each program logs once what is missing, and works as soon as it exists."""
    absent = (
        "stream WATCHDOG does not exist, and this NATS user may not create it; run 'tickertape streams apply'"
    )
    config, log = tmp_path / "gateways.yaml", tmp_path / "app.log"
    config.write_text(GATEWAY.format(id="a", port=1))
    log.write_text("one\n")
    url = ["--nats-url", nats.url]
    state = ["--state-dir", str(tmp_path / "state"), "--host", "web1"]
    relay = Relay(nats.url, *nats.options("relay"))
    with (
        program(
            tmp_path / "monitor.log", "monitor", "--gateways", str(config), *url, *nats.options("monitor")
        ) as monitor,
        program(tmp_path / "ship.log", "ship", str(log), *state, *url, *nats.options(SHIPPER)) as shipper,
    ):
        try:
            relay.start(ready=False)
            relay.until_logged(absent)
            monitor.until(absent)
            shipper.until(absent)
            lost = run_command(
                "publish",
                "log.info.x",
                '{"message":"m"}',
                "--deadline",
                "5",
                *url,
                *nats.options("publisher"),
            )
            assert lost.returncode == 1
            assert "create the streams with 'tickertape streams apply'" in lost.stderr
            nats.command_apply()
            relay.until_ready()
            monitor.until("monitoring 1 gateway")
            assert sum(absent in line for line in relay.log) == 1
            assert monitor.output.count(absent) == shipper.output.count(absent) == 1

            async def check() -> None:
                async with follow(relay.ws_url, since="earliest") as feed:
                    await feed.until(lambda: "one" in texts(feed))

            run(check())
        finally:
            relay.close()


def test_a_forgotten_inbox_is_named(nats: Deployed) -> None:
    """A program that subscribes outside of its inbox prefix is told immediately which option to set."""
    options = nats.options("operator")[:-2]
    done = run_command("streams", "show", "--nats-url", nats.url, *options)
    assert done.returncode == EXIT_DENIED
    assert "NATS user 'operator' may not subscribe to \"_INBOX.>\"" in done.stderr
    assert "--nats-inbox-prefix" in done.stderr


def test_a_check_as_another_user_names_the_relay(nats: Deployed) -> None:
    """The operator may not do what a relay does; its check shows the streams, and names the user to use."""
    nats.command_apply()
    done = run_command(*CHECK, "--nats-url", nats.url, *nats.options("operator"))
    assert done.returncode == 1
    (error,) = [line for line in done.stdout.splitlines() if line.startswith("error")]
    assert "NATS user 'operator' may not publish to \"rejected.check\"" in error
    assert error.endswith("or run the check as the user of the relay")
    assert "all streams match the contract" in done.stdout


# --- what each user may not do

_OF_STREAMS = [
    f"$JS.API.{verb}.{stream}"
    for verb in ("STREAM.CREATE", "STREAM.UPDATE", "STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE")
    for stream in ("EVENTS", "LATEST", "HEALTH", "HISTORY", "CHECKPOINTS", "WATCHDOG", "REJECTED")
] + ["$JS.API.STREAM.CREATE.MINE", "$JS.API.STREAM.SNAPSHOT.EVENTS", "$JS.API.STREAM.RESTORE.EVENTS"]
_TO_READ = [
    "$JS.API.STREAM.MSG.GET.EVENTS",
    "$JS.API.DIRECT.GET.EVENTS.log.info.x",
    "$JS.API.DIRECT.GET.REJECTED",
    "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.mine",
    "$JS.API.CONSUMER.CREATE.EVENTS.mine.log.>",
    "$JS.API.CONSUMER.MSG.NEXT.EVENTS.mine",
    "$JS.API.CONSUMER.DELETE.EVENTS.mine",
]
_FOR_THE_RELAY = [
    "$JS.API.CONSUMER.CREATE.EVENTS",
    "$JS.API.CONSUMER.CREATE.LATEST",
    "$JS.API.CONSUMER.CREATE.HEALTH",
    "$JS.API.DIRECT.GET.EVENTS",
    "$JS.API.DIRECT.GET.LATEST",
    "$JS.API.DIRECT.GET.HEALTH",
    "$JS.API.CONSUMER.CREATE.HISTORY",
    "$JS.API.DIRECT.GET.HISTORY",
]
_OF_OTHERS = [
    "rejected.log.info.x",
    "watchdog.fired.ctp.a",
    "$JS.API.INFO",
    "$SYS.REQ.SERVER.PING",
    "$JS.SNAPSHOT.ACK.EVENTS.mine.1.1",
    "$JS.SNAPSHOT.RESTORE.EVENTS.mine",
    "tickertape.restore",
    "other.subject",
]
_OF_GATEWAYS = [
    "gateway.status.ctp.a",
    "gateway.recovery.ctp.a",
    "watchdog.armed.ctp.a",
    "watchdog.silenced.ctp.a",
    "watchdog.monitor.m",
    "watchdog.vote.ctp.a.m",
    "watchdog.limit.recovery.ctp.a.1",
]

PUBLISH = {
    "operator": [
        "checkpoint.web1.x",
        "rejected.x",
        "watchdog.armed.ctp.a",
    ],
    "relay": [
        *_OF_STREAMS,
        *_OF_GATEWAYS,
        "log.info.x",
        "system.health.relay",
        "checkpoint.web1.x",
        "$JS.SNAPSHOT.ACK.EVENTS.mine.1.1",
        "$JS.SNAPSHOT.RESTORE.EVENTS.mine",
        "tickertape.restore",
        "other.subject",
    ],
    "monitor": [
        *_OF_STREAMS,
        *_OF_OTHERS,
        *_TO_READ,
        *_FOR_THE_RELAY,
        "log.info.x",
        "checkpoint.web1.x",
        "system.health.shipper.web1",
        "$JS.API.CONSUMER.CREATE.EVENTS.mine.>",
        "$JS.API.CONSUMER.CREATE.WATCHDOG.mine.watchdog.armed.>",
        "$JS.API.DIRECT.GET.EVENTS.checkpoint.web1.x",
    ],
    SHIPPER: [
        *_OF_STREAMS,
        *_OF_OTHERS,
        *_TO_READ,
        *_FOR_THE_RELAY,
        *_OF_GATEWAYS,
        "checkpoint.web2.x",
        "system.health.shipper.web2",
        "system.health.monitor.a",
        "$JS.API.DIRECT.GET.EVENTS.checkpoint.web2.x",
        "$JS.API.DIRECT.GET.CHECKPOINTS.checkpoint.web2.x",
        "$JS.API.DIRECT.GET.CHECKPOINTS",
        "$JS.API.DIRECT.GET.LATEST.gateway.status.ctp.a",
        "$JS.API.DIRECT.GET.HEALTH.system.health.shipper.web2",
        "$JS.API.CONSUMER.CREATE.CHECKPOINTS",
        "$JS.API.CONSUMER.CREATE.EVENTS.mine.checkpoint.web1.>",
    ],
    "publisher": [
        *_OF_STREAMS,
        *_OF_OTHERS,
        *_TO_READ,
        *_FOR_THE_RELAY,
        *_OF_GATEWAYS,
        "checkpoint.web1.x",
        "system.health.monitor.a",
        "system.health.shipper.web1",
        "$JS.API.STREAM.INFO.EVENTS",
        "$JS.FC.EVENTS.mine.x",
    ],
}
LISTEN = [">", "log.>", "gateway.>", "checkpoint.>", "rejected.>", "watchdog.>", "$JS.>", "_INBOX.>"]


async def rejected(output: list[str], what: str) -> None:
    """Wait until the server reports a permission violation, and nothing else."""
    try:
        async with asyncio.timeout(PATIENCE):
            while not output:
                await asyncio.sleep(0.002)
    except TimeoutError:
        pytest.fail(f"allowed: {what}")
    assert what in output.pop()
    assert output == []


@pytest.mark.parametrize("user", PUBLISH)
def test_forbidden_subjects_are_rejected(nats: Deployed, user: str) -> None:
    """Each forbidden subject is rejected by the server and has no effect."""
    nats.apply()
    inboxes = [f"_INBOX_{name}.>" for name in ("operator", "relay", "monitor", "web1", "publisher")]

    async def check() -> None:
        async with nats.client(user) as (client, output):
            own = f"{nats.access(user).inbox_prefix}.>"
            for subject in PUBLISH[user]:
                await client.publish(subject, b"{}")
                await rejected(output, f'publish to "{subject}"')
            for subject in [*LISTEN, *(inbox for inbox in inboxes if inbox != own)]:
                await client.subscribe(subject)
                await rejected(output, f'subscribe to "{subject}"')
        async with nats.client("operator") as (client, _):
            for config in streams.stream_configs(Names()):
                there = await streams.stream_info(client, config["name"])
                assert there is not None
                assert (there["state"]["messages"], there["state"]["consumer_count"]) == (0, 0)
            assert await streams.differences(client, Names()) == []

    run(check())


@pytest.mark.parametrize(
    "config",
    [
        {"filter_subject": "log.>"},
        {"filter_subjects": ["log.>"]},
        {"filter_subjects": ["gateway.>", "log.>"]},
        {},
    ],
    ids=str,
)
def test_a_monitor_cannot_read_more_than_it_asks_for(nats: Deployed, config: dict[str, Any]) -> None:
    """The filter in the request's subject, which permissions limit, is the consumer's filter."""
    nats.apply()

    async def check() -> None:
        async with nats.client("monitor") as (client, _):
            more = {"name": "mine", "ack_policy": "none", "deliver_subject": client.new_inbox(), **config}
            subject = "$JS.API.CONSUMER.CREATE.EVENTS.mine.gateway.>"
            answer = await ask(client, subject, {"stream_name": "EVENTS", "config": more})
            assert "error" in answer

    run(check())


def test_a_consumer_of_a_monitor_writes_nothing_elsewhere(nats: Deployed) -> None:
    """A push consumer can name any delivery subject, but nothing is delivered where no client subscribes."""
    nats.apply()

    async def check() -> None:
        async with nats.client("monitor") as (client, _):
            for number, target in enumerate(["rejected.forged", "$JS.API.STREAM.DELETE.REJECTED"]):
                more = {
                    "name": f"c{number}",
                    "ack_policy": "none",
                    "deliver_subject": target,
                    "filter_subject": "gateway.>",
                }
                subject = f"$JS.API.CONSUMER.CREATE.EVENTS.c{number}.gateway.>"
                assert "error" not in await ask(client, subject, {"stream_name": "EVENTS", "config": more})
            await ask(client, "gateway.status.ctp.a", b"{}")
        async with nats.client(SHIPPER) as (client, _):
            await ask(client, "log.info.x", b"nonsense")
        async with nats.client("operator") as (client, _):
            while not (await streams.stream_info(client, "REJECTED") or {})["state"]["messages"] >= 2:
                await asyncio.sleep(0.02)
            answer = await ask(client, "$JS.API.STREAM.INFO.REJECTED", {"subjects_filter": ">"})
            assert set(answer["state"]["subjects"]) == {
                "rejected.gateway.status.ctp.a",
                "rejected.log.info.x",
            }

    with Relay(nats.url, *nats.options("relay")):
        run(check())


def test_a_shipper_reads_its_own_checkpoints_alone(nats: Deployed) -> None:
    """The body of a request cannot widen what its subject permits."""
    nats.apply()

    async def check() -> None:
        async with nats.client("publisher") as (client, _):
            await ask(client, "log.info.secret", b"{}")
        async with nats.client(SHIPPER) as (client, _):
            await ask(client, "checkpoint.web1.mine", b"mine")
            subject = "$JS.API.DIRECT.GET.EVENTS.checkpoint.web1.mine"
            for body in (b"", b'{"seq":1}', b'{"last_by_subj":"log.info.secret"}', b'{"multi_last":[">"]}'):
                reply = await client.request(subject, body, timeout=PATIENCE)
                assert reply.data in (b"mine", b"")

    run(check())
