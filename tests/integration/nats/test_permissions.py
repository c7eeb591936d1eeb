"""Each entry of ``deploy/nats/permissions.conf`` is used by a program, and allows nothing beyond itself.

The programs do all that they do in a deployment, and the server's trace shows which subjects they use. An
entry that no subject needs, such as a new line without a use, fails the test. Then the server judges: a
user without the entry may not use that subject, a user with it may, and may not use the subjects beside it.
"""

import asyncio
import json
import re
import signal
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from nats.aio.client import Client
from tickertape.contracts.events import GatewayStatusChange, Status, SystemHealth

from tests.integration.stream.test_poison_last_resort import EVERYWHERE, FAULTY
from tests.support.clients.feed_client import follow, line, run, status
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, command, environment, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.deployed_nats import SHIPPER, USERS, Deployed, deployed
from tests.support.servers.nats_server import NatsServer
from tickertape.nats import connection
from tickertape.nats.connection import Access

TEXT: Final = (ROOT / "deploy" / "nats" / "permissions.conf").read_text(encoding="utf-8")
LARGE: Final = 60_000
"""Bytes of an event; with ``MANY`` of them, a consumer needs flow control."""

MANY: Final = 40

GATEWAY: Final = """\
gateways:
  - id: a
    type: ctp
    interval: 200ms
    healthy_after: 1
    unhealthy_after: 1
    probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]
    recovery: {{command: ["true"], after: 0s, attempts: 9, backoff: 1s}}
"""


class Entry(NamedTuple):
    """Line of the permissions.

    Attributes:
        user: user whose permission it is.
        kind: ``publish``, ``subscribe`` or ``deny``.
        subject: subject pattern.
    """

    user: str
    kind: str
    subject: str


def parse(text: str) -> list[Entry]:
    """Return the entries of the file, in their order."""
    text = re.sub(r"#.*", "", text)
    entries = []
    for block, body in re.findall(r"^MAY_(\w+): \{\n(.*?)^\}", text, re.MULTILINE | re.DOTALL):
        user = block.lower().replace("_", "-")
        kind = ""
        for word, pattern in re.findall(r'\b(publish|subscribe|allow|deny):|"([^"]+)"', body):
            kind = {"allow": "publish"}.get(word, word) if word else kind
            if pattern:
                entries.append(Entry(user, kind, pattern))
    return entries


ENTRIES: Final = parse(TEXT)


def covers(pattern: str, subject: str) -> bool:
    """Return whether a pattern covers a subject, or another pattern."""
    wanted, given = pattern.split("."), subject.split(".")
    for position, token in enumerate(wanted):
        if token == ">":
            return position < len(given)
        if position >= len(given) or (token not in ("*", given[position])):
            return False
    return len(wanted) == len(given)


def allowed(user: str, kind: str, subject: str, without: Entry | None = None) -> bool:
    """Return whether the file allows a user a subject."""
    found = [entry for entry in ENTRIES if entry.user == user and entry != without]
    denied = kind == "publish" and any(e.kind == "deny" and covers(e.subject, subject) for e in found)
    return not denied and any(e.kind == kind and covers(e.subject, subject) for e in found)


def test_the_file_is_read_completely() -> None:
    """Every quoted subject is an entry of one of the users."""
    quoted = re.findall(r'"([^"]+)"', re.sub(r"#.*", "", TEXT))
    assert [entry.subject for entry in ENTRIES] == quoted
    assert {entry.user for entry in ENTRIES} == set(USERS)
    assert len(set(ENTRIES)) == len(ENTRIES)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], set[str]]:
    """Let all programs do everything once; return the subjects that each user published or subscribed to."""
    folder = tmp_path_factory.mktemp("used")
    with deployed(folder, more="trace: true\nmax_traced_msg_len: 8") as nats:
        desk = _Desk(nats, folder)
        desk.operate()
        desk.monitor()
        desk.relay()
        desk.produce()
        desk.replay()
        assert nats.violations == []
        found = defaultdict(set)
        pattern = r'/user:([\w-]+)" - <<- \[(H?PUB|SUB) (\S+)'
        for user, verb, subject in re.findall(pattern, nats.server.log):
            found[user, "subscribe" if verb == "SUB" else "publish"].add(subject)
    return found


class _Desk:
    """Programs of a deployment, and what they do."""

    def __init__(self, nats: Deployed, folder: Path) -> None:
        self._nats = nats
        self._folder = folder

    def _command(self, user: str, *arguments: str, code: int = 0) -> str:
        done = run_command(*arguments, "--nats-url", self._nats.url, *self._nats.options(user))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def _publish(self, user: str, *messages: tuple[str, bytes]) -> None:
        """Publish messages until they are stored."""

        async def work() -> None:
            async with self._nats.client(user) as (client, _):
                for subject, body in messages:
                    await client.request(subject, body, timeout=PATIENCE)

        run(work())

    def operate(self) -> None:
        """Create the streams, list large dead letters, make a backup and restore it."""
        self._command("operator", "streams", "apply", "--audit")
        self._publish("relay", *((f"rejected.log.info.x{n}", b"x" * LARGE) for n in range(MANY)))
        self._command("operator", "streams", "rejected")
        self._command("operator", "streams", "audit")
        self._command("operator", "streams", "backup", str(self._folder / "backup"))
        self._command("operator", "streams", "restore", str(self._folder / "backup"), "--yes")

    def replay(self) -> None:
        """Publish a rejected event of each kind again."""
        recovery = {
            "event_type": "gateway_recovery", "timestamp": "2026-01-01T00:00:00Z", "gateway_id": "r",
            "gateway_type": "ctp", "phase": "started", "attempt": 1, "action": "restart",
        }  # fmt: skip
        health = SystemHealth.model_validate({"component": "app", "status": "HEALTHY"})
        events = [(event.subject, event.encode()) for event in (line("m"), status("r"), health)]
        events.append(("gateway.recovery.ctp.r", json.dumps(recovery).encode()))

        async def work() -> None:
            async with self._nats.client("relay") as (client, _):
                for number, (subject, body) in enumerate(events, 1_000_001):
                    headers = {"Tickertape-Sequence": str(number), "Tickertape-Subject": subject}
                    await client.publish(f"rejected.{subject}", body, headers=headers)
                await client.flush()

        run(work())
        for number, (subject, _) in enumerate(events, 1_000_001):
            printed = self._command("operator", "streams", "rejected", "--replay", str(number))
            assert subject in printed

    def monitor(self) -> None:
        """Run a monitor of a gateway that fails, among large events and silences of other monitors."""
        config, log = self._folder / "gateways.yaml", self._folder / "monitor.log"
        gateway = socket.create_server(("127.0.0.1", 0), backlog=4096)
        port = gateway.getsockname()[1]
        config.write_text(GATEWAY.format(port=port))
        arguments = ["monitor", "--gateways", str(config), "--health-interval", "0.2", "--id", "m"]
        arguments += ["--nats-url", self._nats.url, *self._nats.options("monitor")]
        large = json.dumps({"x": "x" * LARGE}).encode()
        self._publish("monitor", ("watchdog.monitor.m", b'{"instance":"predecessor","released":true}'))
        with self._running(log, *arguments):
            self._traced("PUB $JS.API.DIRECT.GET.WATCHDOG.watchdog.monitor.m ", "PUB watchdog.vote.ctp.a.m ")
            self._until("gateway.status.ctp.a", "HEALTHY")
            self._publish("monitor", *((f"gateway.status.ctp.b{n}", large) for n in range(MANY)))
            self._publish("monitor", *((f"watchdog.silenced.ctp.b{n}", large) for n in range(MANY)))
            gateway.close()
            self._traced("PUB gateway.recovery.ctp.a", "PUB watchdog.limit.recovery.ctp.a.1 ")
            self._traced("PUB $JS.FC.EVENTS.", "PUB $JS.FC.WATCHDOG.")
            silence = ("monitor", "silence", "a", "--for", "5m", "--reason", "a test", "--audit")
            self._command("monitor", *silence)
        with self._running(log, *arguments):
            self._traced("PUB $JS.API.DIRECT.GET.WATCHDOG.watchdog.silenced.ctp.a ")

    @contextmanager
    def _running(self, log: Path, *arguments: str) -> Iterator[None]:
        """Run a program until the context is left."""
        with log.open("wb") as output:
            process = subprocess.Popen(
                command(*arguments), cwd=ROOT, env=environment(), stdout=output, stderr=output
            )
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(PATIENCE)

    def _traced(self, *texts: str) -> None:
        """Wait until the server's trace contains some texts."""
        for text in texts:
            eventually(lambda text=text: text in self._nats.server.log, text)  # type: ignore[misc]

    def _until(self, subject: str, current: str) -> None:
        """Wait until a gateway has a status."""

        async def work() -> None:
            async with self._nats.client("operator") as (client, _), asyncio.timeout(PATIENCE):
                while True:
                    reply = await client.request(f"$JS.API.DIRECT.GET.EVENTS.{subject}", timeout=PATIENCE)
                    if reply.data and json.loads(reply.data).get("current_status") == current:
                        return
                    await asyncio.sleep(0.05)

        run(work())

    def relay(self) -> None:
        """Run a relay among large states, invalid events, and a message that ends its connection."""
        padding = {"padding": "x" * LARGE}
        health = {"status": "HEALTHY", "metadata": padding}
        for user, count in (("publisher", MANY), ("monitor", MANY)):
            events = [
                SystemHealth.model_validate({"component": f"c{n}", **health})
                if user == "publisher"
                else status(f"g{n}").model_copy(update={"metadata": padding})
                for n in range(count)
            ]
            self._publish(user, *((event.subject, event.encode()) for event in events))
        bad = [
            status("z", Status.DEGRADED).model_copy(update={"metadata": {"note": "unparsable"}}),
            GatewayStatusChange.model_validate(status("zz")),
        ]
        self._publish("monitor", *((event.subject, event.encode()) for event in bad))
        component = SystemHealth.model_validate(
            {"component": "z", "status": "HEALTHY", "metadata": {"note": "unparsable"}}
        )
        self._publish("publisher", (component.subject, component.encode()))
        relay = Relay(self._nats.url, *self._nats.options("relay"), "--audit", "--ops-port", "0")
        relay.program = [sys.executable, "-c", FAULTY.replace("WHERE", EVERYWHERE)]

        async def check() -> None:
            async with follow(relay.ws_url, since="10m", mode="complete") as feed:
                await asyncio.to_thread(self._publish, "publisher", ("log.info.x", b"invalid"))
                await asyncio.to_thread(self._publish, "publisher", ("log.info.x", line("after").encode()))
                await feed.until(
                    lambda: any(
                        item.event.get("message") == "after"
                        for message in feed.messages
                        for item in getattr(message, "events", ())
                    )
                )
            async with self._nats.client("operator") as (client, _), asyncio.timeout(PATIENCE):
                subject = "$JS.API.DIRECT.GET.REJECTED.rejected.log.info.x"
                while not (await client.request(subject, timeout=PATIENCE)).data:
                    await asyncio.sleep(0.05)

        with relay:
            run(check(), 4 * PATIENCE)
            eventually(
                lambda: any("of the history of gateways" in line for line in relay.log), "HISTORY is read"
            )
            relay.stop()
        # Ready does not include the history of gateways, which is read in the background.
        for pattern, history in (
            ("gateway.status.>", ["PUB $JS.API.CONSUMER.CREATE.HISTORY."]),
            ("system.health.>", []),
        ):
            with Relay(self._nats.url, *self._nats.options("relay"), "--subjects", pattern) as part:
                self._traced(*history)
                part.stop()
        self._command("relay", "check", "--port", "0", "--ops-port", "0")

    def produce(self) -> None:
        """Ship a file, show the shipper's status, and publish events."""
        log, state = self._folder / "app.log", self._folder / "state"
        log.write_text("one\n")
        for _ in range(2):  # the second time from the checkpoint
            self._command(SHIPPER, "ship", str(log), "--once", "--host", "web1", "--state-dir", str(state))
        self._command(SHIPPER, "ship", "--status", "--host", "web1")
        self._command("publisher", "publish", "log.info.x", '{"message": "m"}')
        self._command("publisher", "publish", "system.health.app", '{"status": "HEALTHY"}')


def needed_for(entry: Entry, used: dict[tuple[str, str], set[str]]) -> str | None:
    """Return a subject that a program used, and that only this entry allows; None if there is none."""
    if entry.kind == "deny":
        return entry.subject.replace(">", "x")
    return next(
        (
            subject
            for subject in sorted(used[entry.user, entry.kind])
            if covers(entry.subject, subject) and not allowed(entry.user, entry.kind, subject, entry)
        ),
        None,
    )


def test_each_permission_is_needed(used: dict[tuple[str, str], set[str]]) -> None:
    """A program uses a subject that no other line of its user allows; else the line can be deleted."""
    unused = [entry for entry in ENTRIES if needed_for(entry, used) is None]
    assert not unused, "\n".join(map(str, unused))


def neighbours(entry: Entry) -> Iterator[str]:
    """Yield subjects beside an entry, which it does not allow: one token differs, is missing or is more."""
    tokens = [{"*": "x", ">": "x"}.get(token, token) for token in entry.subject.split(".")]
    for position, token in enumerate(entry.subject.split(".")):
        if token not in ("*", ">"):
            yield ".".join([*tokens[:position], "other", *tokens[position + 1 :]])
    yield ".".join(tokens[:-1])
    yield ".".join([*tokens, "x"])
    if entry.kind == "subscribe":
        yield ">"


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run a server with the users of the file, and one user for each entry, who lacks it."""
    everyone = [(user, None) for user in USERS] + [
        (f"{entry.user}-{n}", entry) for n, entry in enumerate(ENTRIES)
    ]
    users = []
    for name, without in everyone:
        own = [e for e in ENTRIES if e != without and e.user == (without.user if without else name)]
        lists = {
            kind: [e.subject for e in own if e.kind == kind] for kind in ("publish", "subscribe", "deny")
        }
        permissions = {
            "publish": {"allow": lists["publish"] or ["none"], "deny": lists["deny"]},
            "subscribe": {"allow": lists["subscribe"] or ["none"]},
        }
        users.append(f"{{user: {name}, password: x, permissions: {json.dumps(permissions)}}}")
    with NatsServer(
        tmp_path_factory.mktemp("judge"),
        jetstream=False,
        config=f"authorization {{ users: [{', '.join(users)}] }}",
    ) as server:
        yield server


@asynccontextmanager
async def _client(url: str, user: str) -> AsyncIterator[tuple[Client, list[Exception]]]:
    """Connect as a user; yield the connection, and the list of the server's errors."""
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        errors.append(error)

    access = Access(user=user, password="x", inbox_prefix="_INBOX_none")
    client = await connection.connect_once(url, name="test", access=access, on_error=failed)
    try:
        yield client, errors
    finally:
        await client.close()


async def verdict(client: Client, errors: list[Exception], kind: str, subject: str) -> bool:
    """Return whether the server allows a subject."""
    errors.clear()
    if kind == "subscribe":
        subscription = await client.subscribe(subject)
        await client.flush()
        await subscription.unsubscribe()
    else:
        await client.publish(subject, b"")
        await client.flush()
    return not errors


def test_the_server_denies_what_a_line_does_not_allow(
    judge: NatsServer, used: dict[tuple[str, str], set[str]]
) -> None:
    """With a line its user may use the subject, without it not, and the subjects beside it never."""

    async def check() -> None:
        wrong = []
        for user in USERS:
            own = [entry for entry in ENTRIES if entry.user == user]
            async with _client(judge.url, user) as (client, errors):
                for entry in own:
                    kind = "publish" if entry.kind == "deny" else entry.kind
                    subject = needed_for(entry, used)
                    assert subject is not None
                    if await verdict(client, errors, kind, subject) is (entry.kind == "deny"):
                        wrong.append((entry, "with it", subject))
                    wrong += [
                        (entry, "beside it", beside)
                        for beside in neighbours(entry)
                        if await verdict(client, errors, kind, beside) is not allowed(user, kind, beside)
                    ]
            for entry in own:
                kind = "publish" if entry.kind == "deny" else entry.kind
                subject = needed_for(entry, used) or ""
                async with _client(judge.url, f"{user}-{ENTRIES.index(entry)}") as (client, errors):
                    if await verdict(client, errors, kind, subject) is not (entry.kind == "deny"):
                        wrong.append((entry, "without it", subject))
        assert not wrong, "\n".join(map(str, wrong))

    run(check())
