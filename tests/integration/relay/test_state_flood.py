"""A flood of components: new clients and new relays still get every gateway, and are told what is missing."""

import asyncio
import json
from urllib.request import urlopen

from tickertape.contracts.events import GatewayStatusChange, Status, SystemHealth
from tickertape.contracts.messages import Snapshot
from tickertape.relay.core.snapshot import FAMILIES

from tests.support.clients.attacker import count
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import PATIENCE, follow, jetstream, publish, publish_burst, run, status
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer

FLOOD = 20_000
GATEWAYS = ["gateway.status.ctp.a", "gateway.status.ctp.b", "gateway.status.ctp.c"]


async def shown(relay: Relay, *subjects: str) -> tuple[list[str], Snapshot]:
    """Return the subjects in a new client's snapshot, and its last message."""
    async with follow(relay.ws_url, subjects=",".join(subjects)) as feed:
        parts = only(feed.messages, Snapshot)
    assert [part.truncated for part in parts[:-1]] == [0] * (len(parts) - 1)
    return [item.subject for part in parts for item in part.events], parts[-1]


async def check(relay: Relay) -> None:
    """Check what new clients of a relay get during or after the flood."""
    missing = FLOOD - FAMILIES["system.health"].max_states
    subjects, last = await shown(relay, ">")
    assert subjects[:3] == GATEWAYS
    assert len(subjects) == 3 + FAMILIES["system.health"].max_states
    assert subjects[-1] == f"system.health.x{FLOOD - 1}", "the most recently changed stay"
    assert (last.truncated, last.truncated_by) == (missing, {"system.health": missing})
    subjects, last = await shown(relay, "gateway.>")
    assert (subjects, last.truncated, last.truncated_by) == (GATEWAYS, 0, {})
    assert count(relay, "states_missing", family="system.health") == missing
    # The warm-up of a relay that has just started evicts those again that it finds in the stream's tail.
    assert count(relay, "states_evicted_total", family="system.health") >= missing
    for name in ("states_missing", "states_evicted_total"):
        assert count(relay, name, family="gateway.status") == 0
    assert count(relay, "states", family="gateway.status") == 3
    with urlopen(f"{relay.ops_url}/statusz", timeout=PATIENCE) as page:
        states = json.loads(page.read())["states"]
    assert states["gateway.status"] == {"known": 3, "missing": 0, "evicted": 0}
    assert states["system.health"]["missing"] == missing


LARGE = 200_000
"""Bytes of a state, so that fewer than a thousand fill a pool."""


def test_a_gateway_type_displaces_no_other(nats_server: NatsServer) -> None:
    """A gateway type that fills the pool displaces its own states, whenever those of others have changed."""
    number = FAMILIES["gateway.status"].max_bytes // LARGE + 40

    async def flood(relay: Relay) -> None:
        async with jetstream(nats_server.url) as js, follow(relay.ws_url, subjects="gateway.>") as feed:
            for gateway in "abc":
                await publish(js, status(gateway))
            for n in range(number):
                event = GatewayStatusChange(
                    gateway_id=f"g{n}", gateway_type="x", previous_status=Status.UNKNOWN,
                    current_status=Status.HEALTHY, metadata={"text": "x" * LARGE},
                )  # fmt: skip
                await publish(js, event)
            last = await publish(js, status("a"))
            await feed.until(lambda: last in feed.seqs())

    async def check(relay: Relay) -> None:
        subjects, last = await shown(relay, "gateway.status.ctp.>")
        assert sorted(subjects) == GATEWAYS
        assert last.truncated_by["gateway.status"] >= 30

    with Relay(nats_server.url) as relay:
        run(flood(relay))
        run(check(relay))


def test_a_flood_of_components_hides_no_gateway(nats_server: NatsServer) -> None:
    """20 000 components do not displace three gateways, for a running relay and for one that starts later."""

    async def flood(relay: Relay) -> None:
        end = SystemHealth(component="end", status=Status.REMOVED)
        async with jetstream(nats_server.url) as js, follow(relay.ws_url, subjects=end.subject) as feed:
            for gateway in "abc":
                await publish(js, status(gateway))
            events = (SystemHealth(component=f"x{number}", status=Status.HEALTHY) for number in range(FLOOD))
            await publish_burst(js._nc, ((event.subject, event.encode()) for event in events))
            await publish(js, end)
            await feed.events(1)
            async with asyncio.timeout(PATIENCE):
                while (await js.stream_info("HEALTH")).state.messages != FLOOD + 1:
                    await asyncio.sleep(0.05)

    with Relay(nats_server.url) as relay:
        run(flood(relay))
        run(check(relay))
        reports = "more states of system.health than a relay can hold"
        eventually(lambda: sum(reports in text for text in relay.log) == 1, "it is reported")
        assert any(reports in text and "system.health.x" in text for text in relay.log)
        relay.kill()
        relay.start()
        run(check(relay))
        # What the runbook of the alert says.
        purged = run_command("streams", "purge", "--states", "system.health.>", "--nats-url", nats_server.url)
        assert purged.returncode == 0, purged.stderr
        assert f"HEALTH: {FLOOD + 1} messages purged" in purged.stdout
        relay.stop()
        relay.start()
        assert count(relay, "states_missing", family="system.health") == 0
        subjects, last = run(shown(relay, ">"))
        assert (subjects, last.truncated) == (GATEWAYS, 0)
