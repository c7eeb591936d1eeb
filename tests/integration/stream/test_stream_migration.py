"""The move of components from LATEST to HEALTH: programs accept both layouts, and no gateway is ever lost."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from tickertape.contracts.events import Status, SystemHealth
from tickertape.contracts.messages import Snapshot

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, publish, run, status
from tests.support.programs.relay_process import Relay
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.deployed_nats import ask, deployed
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import stream_differences, streams
from tickertape.nats.stream_differences import HEALTH_SUBJECT

NAMES = Names()


def health(component: str, status: Status = Status.HEALTHY) -> SystemHealth:
    """Build the report of a component."""
    return SystemHealth(component=component, status=status)


async def create_earlier_layout(client: Client) -> None:
    """Create the streams as an earlier version does: LATEST has components, and there is no HEALTH."""
    for config in streams.stream_configs(NAMES):
        if config["name"] == "HEALTH":
            continue
        if config["name"] == "LATEST":
            config["sources"][0]["subject_transforms"].append({"src": HEALTH_SUBJECT, "dest": HEALTH_SUBJECT})
        answer = await streams.request(client, f"STREAM.CREATE.{config['name']}", config)
        assert "error" not in answer, answer


async def copied(js: JetStreamContext, stream: str, count: int) -> None:
    """Wait until a stream has a number of messages."""
    async with asyncio.timeout(PATIENCE):
        while (await js.stream_info(stream)).state.messages != count:
            await asyncio.sleep(0.02)


async def held(client: Client, stream: str) -> dict[str, Any]:
    """Return the number of messages by subject."""
    info = await streams.request(client, f"STREAM.INFO.{stream}", {"subjects_filter": ">"})
    found: dict[str, Any] = info["state"].get("subjects") or {}
    return found


async def shown(relay: Relay) -> dict[str, str]:
    """Return the status of each state in a new client's snapshot."""
    async with follow(relay.ws_url) as feed:
        events = [item for message in only(feed.messages, Snapshot) for item in message.events]
    return {item.subject: item.event.get("current_status") or item.event["status"] for item in events}


ALL = {
    "gateway.status.ctp.gone": "DEGRADED",
    "gateway.status.ctp.a": "HEALTHY",
    "system.health.db": "DEGRADED",
}


async def fill(js: JetStreamContext, client: Client) -> None:
    """Publish two gateways and two components; EVENTS no longer has one of each."""
    await publish(js, status("gone", Status.DEGRADED))
    await publish(js, health("old"))
    await publish(js, status("a", Status.UNHEALTHY))
    await publish(js, status("a", Status.HEALTHY))
    await publish(js, health("db", Status.DEGRADED))
    await copied(js, "LATEST", 4)
    await streams.request(client, "STREAM.PURGE.EVENTS", {"seq": 3})


def test_apply_moves_components_and_keeps_every_gateway(nats_server: NatsServer) -> None:
    """A relay runs with the layout of an earlier version, and ``check`` reports it. After ``apply``, which
    may be interrupted, LATEST has all gateways and only these, and continues to copy.
    """
    url = nats_server.url

    async def before() -> None:
        async with jetstream(url) as js:
            await create_earlier_layout(js._nc)
            await fill(js, js._nc)

    async def old_layout(relay: Relay) -> None:
        assert await shown(relay) == {**ALL, "system.health.old": "HEALTHY"}
        checked = await asyncio.to_thread(run_command, "check", "--nats-url", url)
        assert "stream LATEST also holds system.health, which can evict gateways" in checked.stdout
        assert "'tickertape streams apply'" in checked.stdout
        assert checked.returncode == 0

    async def interrupted() -> None:
        async with jetstream(url) as js:
            # As if ``apply`` had ended after it created HEALTH.
            config = next(one for one in streams.stream_configs(NAMES) if one["name"] == "HEALTH")
            await streams.request(js._nc, "STREAM.CREATE.HEALTH", config)
            await copied(js, "HEALTH", 1)
            assert [str(one) for one in await streams.differences(js._nc, NAMES)] == [
                "stream LATEST also holds system.health, which can evict gateways from it"
            ]

    async def after(relay: Relay) -> None:
        async with jetstream(url) as js:
            client = js._nc
            assert await held(client, "LATEST") == {"gateway.status.ctp.gone": 1, "gateway.status.ctp.a": 1}
            assert await held(client, "HEALTH") == {"system.health.db": 1}
            assert await streams.apply(client, NAMES) == []
            newest = await js.get_last_msg("LATEST", "gateway.status.ctp.a")
            assert (newest.headers or {})["Nats-Stream-Source"].startswith("EVENTS 4 ")
            assert await shown(relay) == {**ALL, "system.health.old": "HEALTHY"}, "the running relay kept all"
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
            assert await shown(relay) == ALL
            await publish(js, status("new", Status.HEALTHY))
            await publish(js, health("new"))
            await copied(js, "LATEST", 3)
            await copied(js, "HEALTH", 2)

    run(before())
    with Relay(url) as relay:
        run(old_layout(relay))
        run(interrupted())
        done = run_command("streams", "apply", "--nats-url", url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [
            "stream LATEST: system.health moved to stream HEALTH",
            "stream LATEST: 2 states of components removed; HEALTH has them",
        ]
        run(after(relay))


def test_nothing_is_moved_before_it_is_copied(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If HEALTH does not catch up, ``apply`` leaves LATEST as it is and says so."""
    monkeypatch.setattr(stream_differences, "CATCH_UP_TIMEOUT", 0.3)
    monkeypatch.setattr(stream_differences, "_has_caught_up", lambda _: False)

    async def work() -> None:
        async with jetstream(nats_server.url) as js:
            client = js._nc
            await create_earlier_layout(client)
            await fill(js, client)
            with pytest.raises(
                streams.StreamsError, match="nothing was moved; run 'tickertape streams apply'"
            ):
                await streams.apply(client, NAMES)
            assert set(await held(client, "LATEST")) == {*ALL, "system.health.old"}
            info = await streams.stream_info(client, "LATEST")
            assert info is not None
            assert stream_differences.is_combined(info["config"], NAMES)

    run(work())


def test_permissions_of_an_earlier_version_are_enough_for_gateways(tmp_path: Path) -> None:
    """A relay whose user may not read HEALTH yet starts with all gateways, and names what it may not do."""
    with deployed(tmp_path, without="HEALTH") as nats:
        nats.command_apply()

        async def work(relay: Relay) -> None:
            async with nats.client("monitor") as (client, _):
                await ask(client, "gateway.status.ctp.a", status("a").encode())
            async with nats.client("publisher") as (client, _):
                await ask(client, "system.health.db", health("db").encode())
            async with nats.client("operator") as (client, _), asyncio.timeout(PATIENCE):
                while len(await held(client, "HEALTH")) != 1 or len(await held(client, "LATEST")) != 1:
                    await asyncio.sleep(0.02)
            await asyncio.to_thread(relay.kill)
            await asyncio.to_thread(relay.start)
            assert "gateway.status.ctp.a" in await shown(relay)

        with Relay(nats.url, *nats.options("relay")) as relay:
            run(work(relay))
            assert any("cannot load the states of components" in line for line in relay.log)
