"""Programs beyond a boundary of NATS: behind a leaf node, and in an account that imports subjects."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tickertape.producers.sdk.errors import PublishError

from tests.support.clients.feed_client import follow, line, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape import Publisher, SystemHealth
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.credentials import Access
from tickertape.nats.direct_get import get_last_message
from tickertape.nats.streams import apply

STORED = 1_000
"""Events in the stream before the relay starts."""

HUB = """
jetstream {{ domain: hub, store_dir: "{store}", max_mem: 64M, max_file: 8G }}
leafnodes {{ listen: "127.0.0.1:{port}" }}
accounts {{ A {{ jetstream: enabled, users: [ {{ user: a, password: a }} ] }} }}
no_auth_user: a
"""

LEAF = """
leafnodes {{ remotes: [ {{ url: "nats-leaf://a:a@127.0.0.1:{port}", account: A }} ] }}
accounts {{ A {{ mappings: {{ "$JS.API.>": "$JS.hub.API.>" }}, users: [ {{ user: a, password: a }} ] }} }}
no_auth_user: a
"""

ACCOUNTS = """
accounts {
  A { jetstream: enabled, users: [ { user: a, password: a } ], exports: [ { service: "log.>" } ] }
  B { users: [ { user: b, password: b } ], imports: [ { service: { account: A, subject: "log.>" } } ] }
}
"""


@contextmanager
def hub_and_leaf(folder: Path) -> Iterator[tuple[NatsServer, NatsServer]]:
    """Run a hub whose JetStream has a domain, and a leaf node without JetStream, as in ``deploy/nats``."""
    port = free_port()
    hub = NatsServer(
        folder / "hub", jetstream=False, config=HUB.format(store=folder / "hub" / "data", port=port)
    )
    leaf = NatsServer(folder / "leaf", jetstream=False, config=LEAF.format(port=port))
    with hub, leaf:
        eventually(lambda: "Leafnode connection created" in leaf.log, "the leaf node is connected")
        yield hub, leaf


async def create_streams(url: str, access: Access | None = None) -> None:
    """Create the streams."""
    client = await connection.connect_once(url, name="test", access=access)
    await apply(client, Names())
    await connection.close(client)


async def reject_one(url: str) -> None:
    """Publish an invalid event, and wait until the relay has stored it as a dead letter."""
    client = await connection.connect_once(url, name="test")
    try:
        await client.publish("log.info.x", b"nonsense")
        async with asyncio.timeout(PATIENCE):
            while await get_last_message(client, "REJECTED", "rejected.log.info.x") is None:
                await asyncio.sleep(0.02)
    finally:
        await connection.close(client)


def test_a_relay_behind_a_leaf_node_serves_the_streams_of_the_hub(tmp_path: Path) -> None:
    """It replays the stream, receives live events of both sides, and stores dead letters."""
    with hub_and_leaf(tmp_path) as (hub, leaf):
        asyncio.run(create_streams(leaf.url))
        texts = [f"{number}" for number in range(STORED)]

        async def publish(url: str, *messages: str) -> None:
            async with Publisher(url) as publisher:
                for text in messages:
                    event = line(text).model_copy(update={"metadata": {"padding": "x" * 200}})
                    await publisher.submit(event.subject, event.encode())
                await publisher.flush()

        async def check(relay: Relay) -> None:
            async with follow(relay.ws_url, since="earliest", subjects="log.>", mode="complete") as feed:
                assert await feed.texts(STORED) == texts
                await publish(hub.url, "at the hub")
                await publish(leaf.url, "at the leaf")
                assert (await feed.texts(STORED + 2))[-2:] == ["at the hub", "at the leaf"]

        run(publish(hub.url, *texts))
        with Relay(leaf.url) as relay:
            run(check(relay))
            run(reject_one(hub.url))
        checked = run_command("check", "--port", "0", "--ops-port", "0", "--nats-url", leaf.url)
        assert checked.returncode == 0, checked.stdout
        assert "all streams match the contract" in checked.stdout


def test_an_account_publishes_what_it_imports(tmp_path: Path) -> None:
    """The other account's stream acknowledges an event of an imported subject; others fail with the cause."""
    access = Access(user="b", password="b")

    async def check(url: str) -> None:
        await create_streams(url, Access(user="a", password="a"))
        async with Publisher(url, access=access, deadline=2.0) as publisher:
            assert (await publisher.publish(line("imported"))).stream == "EVENTS"
            health = SystemHealth.model_validate({"component": "app", "status": "HEALTHY"})
            with pytest.raises(PublishError, match="no stream captures this subject"):
                await publisher.publish(health)

    with NatsServer(tmp_path, config=ACCOUNTS) as server:
        run(check(server.url))
