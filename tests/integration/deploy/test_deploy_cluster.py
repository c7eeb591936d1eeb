"""The NATS topologies of ``deploy/nats``: three servers with R3, and a hub with a leaf node."""

import asyncio
import re
from pathlib import Path

from tickertape.producers.sdk.publisher import Publisher

from tests.support.clients.feed_client import FeedClient, follow, line, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.nats_sites import SECRET, Site, access, hub_and_leaf, options, three
from tickertape.names import Names
from tickertape.nats import connection, streams
from tickertape.nats.streams import stream_configs

STREAMS = [expected["name"] for expected in stream_configs(Names())]


def relay_options(folder: Path) -> list[str]:
    """Return the options with which a relay connects."""
    return options("relay", folder)


def apply(url: str, folder: Path, *more: str) -> str:
    """Apply the streams as the operator; return the output."""
    done = run_command("streams", "apply", "--nats-url", url, *options("operator", folder), *more)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def publish(url: str, message: str) -> None:
    """Publish one log line until it is acknowledged."""
    async with Publisher(url, name="test", access=access("publisher")) as publisher:
        await publisher.publish(line(message))


async def copies(url: str) -> dict[str, tuple[int, int]]:
    """Return for each stream its number of replicas, and how many are current."""
    client = await connection.connect_once(url, name="test", access=access("operator"))
    try:
        found = {}
        for name in STREAMS:
            there = await streams.stream_info(client, name)
            assert there is not None
            members = there["cluster"].get("replicas", [])
            current = sum(bool(member.get("current")) for member in members)
            found[name] = (there["config"]["num_replicas"], 1 + current)
        return found
    finally:
        await connection.close(client)


def test_three_servers_hold_each_stream_and_one_may_be_lost(tmp_path: Path) -> None:
    """A relay delivers what was acknowledged before and after the loss of a server, once and in order."""
    with three(tmp_path) as sites:
        for site in sites:
            eventually(lambda site=site: "JetStream cluster" in site.log, "raft begins")  # type: ignore[misc]
        url = ",".join(site.url for site in sites)
        eventually(lambda: any("metadata leader" in site.log for site in sites), "JetStream has a leader")
        printed = apply(url, tmp_path, "--replicas", "3")
        assert sorted(printed.split()[1::3]) == sorted(STREAMS)
        eventually(lambda: run(copies(url)) == dict.fromkeys(STREAMS, (3, 3)), "three copies are up to date")
        assert apply(url, tmp_path, "--replicas", "3").startswith("all streams match")
        assert apply(url, tmp_path).startswith("all streams match")
        shown = run_command("streams", "show", "--nats-url", url, *options("operator", tmp_path)).stdout
        assert len(re.findall(r"  3 of 3 replicas current, leader nats-\d$", shown, re.M)) == len(STREAMS)

        with Relay(url, *relay_options(tmp_path)) as relay:
            run(_across_a_loss(relay, url, sites))


async def _across_a_loss(relay: Relay, url: str, sites: list[Site]) -> None:
    async with follow(relay.ws_url, subjects="log.>") as client:
        await publish(url, "before")
        sites[0].kill()
        await publish(url, "after")
        assert await client.texts(2) == ["before", "after"]


def test_replicas_are_rejected_where_there_is_no_cluster(nats_server: NatsServer) -> None:
    """Replicas without a cluster are rejected with one line and exit code 1, and no stream is created."""
    done = run_command("streams", "apply", "--nats-url", nats_server.url, "--replicas", "3")
    assert done.returncode == 1
    assert "replicas" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_is_published_at_a_leaf_arrives_at_the_hubs_relay(tmp_path: Path) -> None:
    """Events and shipped lines published at a leaf are acknowledged by the hub and reach its relay."""
    with hub_and_leaf(tmp_path) as (hub, leaf):
        apply(hub.url, tmp_path)
        with Relay(hub.url, *relay_options(tmp_path)) as relay:
            run(_from_the_leaf(relay, leaf, tmp_path))
        violations = [text for text in (hub.log + leaf.log).splitlines() if "iolation" in text]
        assert violations == []


async def _from_the_leaf(relay: Relay, leaf: Site, folder: Path) -> None:
    async with follow(relay.ws_url, subjects="log.>") as client:
        await publish(leaf.url, "from the leaf")
        assert await client.texts(1) == ["from the leaf"]
        (folder / "app.log").write_text("a line of a file\n")
        await _ship(leaf, folder, client)


async def _ship(leaf: Site, folder: Path, client: FeedClient) -> None:
    done = await asyncio.to_thread(
        run_command,
        *("ship", str(folder / "app.log"), "--once", "--host", "edge1", "--state-dir", str(folder / "state")),
        *("--nats-url", leaf.url, *options("shipper-edge1", folder)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (await client.texts(2))[1] == "a line of a file"


def test_a_leaf_may_not_do_more_than_its_site(tmp_path: Path) -> None:
    """The hub limits a leaf to its site's permissions, even if the leaf's own server allows everything."""
    with hub_and_leaf(tmp_path) as (hub, _):
        apply(hub.url, tmp_path)
        run(_as_the_leaf(hub))


async def _as_the_leaf(hub: Site) -> None:
    output: list[str] = []

    async def failed(error: Exception) -> None:
        output.append(str(error))

    user = connection.Access(user="leaf-edge1", password=SECRET, inbox_prefix="_INBOX_edge1")
    client = await connection.connect_once(hub.url, name="test", access=user, on_error=failed)
    try:
        for subject in ("gateway.status.ctp.a", "checkpoint.web1.x", "$JS.hub.API.STREAM.DELETE.EVENTS"):
            await client.publish(subject, b"{}")
        async with asyncio.timeout(PATIENCE):
            while len(output) < 3:
                await asyncio.sleep(0.01)
        assert all("ermissions" in text for text in output)
    finally:
        await connection.close(client)
