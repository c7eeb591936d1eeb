"""Backup and restore of a running deployment, with the page's commands and the deployment's permissions."""

import asyncio
import base64
import os
import re
import shlex
from pathlib import Path

from nats.aio.client import Client
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.contracts.messages import Events, Gap, Snapshot
from tickertape.producers.sdk.publisher import Publisher

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, line, run, status
from tests.support.paths import ROOT
from tests.support.programs.relay_process import PATIENCE, Relay
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.deployed_nats import SHIPPER, Deployed, ask, deployed
from tickertape.nats.backup.archive import scan
from tickertape.nats.backup.folder import BackupFolder
from tickertape.nats.streams import stream_info
from tickertape.text import MIB

PAGE = (ROOT / "deploy" / "backup.md").read_text(encoding="utf-8")
RANDOM_EVENTS = 170
RANDOM_BYTES = 150_000


def documented(action: str, folder: Path) -> list[str]:
    """Return the arguments of a command of the page, with another folder."""
    (found,) = re.findall(rf"^tickertape (streams {action} DIR(?: --yes)?)$", PAGE, re.MULTILINE)
    return [str(folder) if word == "DIR" else word for word in shlex.split(found)]


class Desk:
    """Programs of a deployment and what they do.

    Attributes:
        nats: the server.
        folder: a folder of the test.
    """

    def __init__(self, nats: Deployed, folder: Path) -> None:
        self.nats = nats
        self.folder = folder
        (folder / "app.log").touch()

    def command(self, *arguments: str, user: str = "operator", code: int = 0) -> str:
        """Run a command, and return its output."""
        done = run_command(*arguments, "--nats-url", self.nats.url, *self.nats.options(user))
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    async def in_thread(self, *arguments: str, user: str = "operator", code: int = 0) -> str:
        """Run a command while the event loop continues."""
        return await asyncio.to_thread(self.command, *arguments, user=user, code=code)

    async def publish(self, user: str, *events: object) -> None:
        """Publish events."""
        async with Publisher(self.nats.url, name="test", access=self.nats.access(user)) as publisher:
            for event in events:
                await publisher.publish(event)  # type: ignore[arg-type]

    async def ship(self, *lines: str) -> None:
        """Append lines to a file, and ship it."""
        with (self.folder / "app.log").open("a") as file:
            file.writelines(f"{text}\n" for text in lines)
        state = ("--state-dir", str(self.folder / "state"))
        arguments = ("ship", str(self.folder / "app.log"), "--once", "--host", "web1", *state)
        await self.in_thread(*arguments, user=SHIPPER)

    async def shipped(self) -> list[str]:
        """Return the shipped lines in EVENTS."""
        async with self.nats.client("operator") as (client, _):
            return await texts(client, "log.info.app")


async def texts(client: Client, pattern: str) -> list[str]:
    """Return the messages of the log events with a subject, in the stream's order."""
    info = await stream_info(client, "EVENTS")
    assert info is not None
    found = []
    for sequence in range(info["state"]["first_seq"], info["state"]["last_seq"] + 1):
        reply = await client.request("$JS.API.DIRECT.GET.EVENTS", b'{"seq":%d}' % sequence, timeout=PATIENCE)
        if (reply.headers or {}).get("Nats-Subject") == pattern:
            found.append(re.findall(rb'"message":"([^"]*)"', reply.data)[0].decode())
    return found


def lines(feed: FeedClient) -> list[str]:
    """Return the messages of the log events that a client received live."""
    messages = [message for message in feed.messages if isinstance(message, Events)]
    events = [item.event for message in messages for item in message.events]
    return [event["message"] for event in events if event["event_type"] == "system_log"]


def statuses(feed: FeedClient) -> list[str]:
    """Return the statuses of the gateway ``a`` that a client received, in snapshots and live."""
    messages = [message for message in feed.messages if isinstance(message, Events | Snapshot)]
    events = [item.event for message in messages for item in message.events]
    return [event["current_status"] for event in events if event.get("gateway_id") == "a"]


def test_a_running_deployment_is_backed_up_and_restored(tmp_path: Path) -> None:
    """After a restore clients, states and shippers continue from the backup, exactly once."""
    with deployed(tmp_path) as nats:
        desk = Desk(nats, tmp_path)
        desk.command("streams", "apply")
        with Relay(nats.url, *nats.options("relay"), "--client-rate", "0") as relay:
            run(_scenario(desk, relay), 5 * PATIENCE)
            assert relay.stop() == 0


async def _scenario(desk: Desk, relay: Relay) -> None:
    nats = desk.nats
    async with follow(relay.ws_url, mode="complete") as feed:
        # Random data is not compressed, so that the transfer exceeds the flow control's window.
        noise = [line(base64.b64encode(os.urandom(RANDOM_BYTES)).decode()) for _ in range(RANDOM_EVENTS)]
        await desk.publish("publisher", *noise)
        await desk.publish("monitor", status("a"))
        await desk.ship("one", "two", "three")
        await feed.until(lambda: "three" in lines(feed) and statuses(feed) == ["HEALTHY"])

        printed = await desk.in_thread(*documented("backup", desk.folder / "backup"))
        assert "backup complete" in printed
        assert nats.violations == []
        head = await _check_archive(desk.folder / "backup")

        changed = status("a", Status.UNHEALTHY)
        await desk.publish("monitor", changed.model_copy(update={"previous_status": Status.HEALTHY}))
        await desk.ship("four", "five")
        await feed.until(lambda: "five" in lines(feed) and len(statuses(feed)) == 2)
        lost = feed.cursor
        assert await desk.shipped() == ["one", "two", "three", "four", "five"]

        printed = await desk.in_thread(*documented("restore", desk.folder / "backup"))
        assert "that the backup does not have" in printed
        assert "restore complete" in printed
        gap = await feed.one(Gap)
        feed.reset()
        assert (gap.reason, parse_cursor(gap.to).sequence) == ("reset", head)

        assert await desk.shipped() == ["one", "two", "three"]
        await desk.ship()
        assert await desk.shipped() == ["one", "two", "three", "four", "five"]
        await desk.publish("publisher", line("later"))
        await feed.until(lambda: "later" in lines(feed))
        assert [text for text in lines(feed) if len(text) < 10][-5:] == ["four", "five"] * 2 + ["later"]
    async with follow(relay.ws_url, cursor=lost, mode="complete") as feed:
        assert [gap.reason for gap in only(feed.messages, Gap)] == ["reset"]
        assert statuses(feed) == ["HEALTHY"]
    await _check_streams(desk)


async def _check_archive(path: Path) -> int:
    """Check that the archive of EVENTS has all events; return the last sequence."""
    with BackupFolder.open(path) as folder:
        manifest = folder.read_manifest()
        events = manifest.find("EVENTS")
        assert events is not None
        assert events.size > 32 * MIB
        assert events.messages == events.last_seq > RANDOM_EVENTS + 5  # a status, lines, and a checkpoint
        archive = folder.open_archive("EVENTS")
        try:
            contents = scan(archive.read, "EVENTS")
        finally:
            archive.close()
        assert (contents.messages, archive.sha256) == (events.messages, events.sha256)
        return events.last_seq


async def _check_streams(desk: Desk) -> None:
    """Check that the copies follow the restored stream, and that all streams match the contract."""
    assert "all streams match the contract" in await desk.in_thread("streams", "apply")
    assert "shipper of web1" in await desk.in_thread("ship", "--status", "--host", "web1", user=SHIPPER)
    async with desk.nats.client("operator") as (client, _):
        answer = await ask(client, "$JS.API.STREAM.INFO.LATEST", {"subjects_filter": ">"})
        assert answer["state"]["subjects"] == {"gateway.status.ctp.a": 1}
        await desk.publish("monitor", status("a", Status.DEGRADED), status("b"))
        async with asyncio.timeout(PATIENCE):
            while (await ask(client, "$JS.API.STREAM.INFO.LATEST"))["state"]["messages"] < 2:
                await asyncio.sleep(0.02)
        reply = await client.request("$JS.API.DIRECT.GET.LATEST.gateway.status.ctp.a", timeout=PATIENCE)
        assert GatewayStatusChange.model_validate_json(reply.data).current_status is Status.DEGRADED
