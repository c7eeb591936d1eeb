"""A data directory of 0.1.0: its streams get the present layout, and no event and no state is lost."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.messages import Gap, Snapshot

from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, jetstream, line, publish, run
from tests.support.compatibility.fixture_0_1_0 import FIXTURE, conversation, data_directory, server_folder
from tests.support.programs.relay_process import Relay, command, environment
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer
from tickertape.nats import streams

GATEWAYS = {
    "gateway.status.ctp.closed": "OFF_SESSION",
    "gateway.status.ctp.main=20account": "HEALTHY",
    "gateway.status.fix.other": "UNHEALTHY",
    "gateway.status.service.broken": "UNHEALTHY",
    "gateway.status.service.quiet": "HEALTHY",
    "gateway.status.service.slow": "DEGRADED",
    "gateway.status.service.steady": "HEALTHY",
    "gateway.status.service.watched": "UNKNOWN",
}
"""The gateways that 0.1.0 knew; it had removed two others."""

COMPONENTS = {
    "system.health.db": "DEGRADED",
    "system.health.db.two": "HEALTHY",
    "system.health.monitor.first": "HEALTHY",
    "system.health.shipper.desk": "HEALTHY",
}
EPOCH, LAST, _ = parse_cursor(conversation()["last"])
"""Epoch of the stream, and sequence of the last event that 0.1.0 stored."""

OTHERS = {"checkpoint.desk.app=2Elog-21e97806083fe64d", "log.info.invalid", "gateway.status.ctp.forged"}
"""Subjects of the messages that are not events."""

MOVED = [
    "stream HEALTH created",
    "stream LATEST: system.health moved to stream HEALTH",
    "stream LATEST: 4 states of components removed; HEALTH has them",
    "stream REJECTED: max_msgs_per_subject -1 -> 100",
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Run a NATS server on the streams of 0.1.0."""
    with NatsServer(server_folder(tmp_path / "nats")) as server:
        yield server


async def shown(relay: Relay) -> dict[str, str]:
    """Return the status of each state in a new client's snapshot."""
    async with follow(relay.ws_url) as feed:
        await feed.until(lambda: any(message.done for message in only(feed.messages, Snapshot)))
        items = [item for message in only(feed.messages, Snapshot) for item in message.events]
    return {item.subject: item.event.get("current_status") or item.event["status"] for item in items}


async def check_feed(relay: Relay) -> None:
    """Check the snapshot, the replay of all events, and every cursor of 0.1.0."""
    assert await shown(relay) == GATEWAYS | COMPONENTS
    async with follow(relay.ws_url, since="earliest", mode="complete") as feed:
        await feed.until(lambda: LAST in feed.seqs())
        whole = feed.seqs()
        assert only(feed.messages, Gap) == []
    async with jetstream(relay.nats_url) as js:
        found = await streams.request(js._nc, "STREAM.INFO.EVENTS", {"subjects_filter": ">"})
    counts: dict[str, int] = found["state"]["subjects"]
    assert counts.keys() > OTHERS
    assert len(whole) == sum(count for subject, count in counts.items() if subject not in OTHERS)
    for cursor in (f"{EPOCH}-{sequence}" for sequence in (0, 1, whole[10], whole[-2])):
        async with follow(relay.ws_url, cursor=cursor, mode="complete") as feed:
            await resumed(feed, [one for one in whole if one > parse_cursor(cursor)[1]])


async def resumed(feed: FeedClient, expected: list[int]) -> None:
    """Read until the last of some sequences; check that these were received, and nothing else."""
    await feed.until(lambda: expected[-1] in feed.seqs())
    assert feed.seqs() == expected
    assert only(feed.messages, Gap) == []


def test_an_embedded_server_continues(tmp_path: Path) -> None:
    """A relay starts on the data directory of 0.1.0 before and after ``streams apply``; clients continue."""
    data = data_directory(tmp_path)
    with Relay(None, "--data-dir", str(data), "--nats-port", "0") as relay:
        run(check_feed(relay))
        done = run_command("streams", "apply", "--nats-url", relay.nats_url)
        assert done.stdout.splitlines() == MOVED
        relay.stop()
        relay.start()
        run(check_feed(relay))


def test_an_external_server_continues(server: NatsServer) -> None:
    """``streams apply`` first, as the documentation says: no gateway, component or event is lost, twice."""
    for expected in ([*MOVED, "stream HISTORY created"], ["all streams match the contract"]):
        done = run_command("streams", "apply", "--nats-url", server.url)
        assert (done.returncode, done.stdout.splitlines()) == (0, expected), done.stderr
    checked = run_command("check", "--nats-url", server.url)
    assert checked.returncode == 0, checked.stdout
    with Relay(server.url) as relay:
        run(check_feed(relay))
    rejected = run_command("streams", "rejected", "--nats-url", server.url)
    assert "log.info.invalid" in rejected.stdout
    assert "gateway.status.ctp.forged" in rejected.stdout


def test_the_state_file_of_a_tail_continues(server: NatsServer, tmp_path: Path) -> None:
    """``tail --state-file`` continues where that of 0.1.0 stopped: with the next event, and without a gap."""
    state = tmp_path / "tail.state"
    shutil.copy(FIXTURE / "tail.state", state)

    async def publish_one() -> None:
        async with jetstream(server.url) as js:
            await publish(js, line("after the upgrade"))

    with Relay(server.url) as relay:
        asyncio.run(publish_one())
        arguments = command("tail", "--url", relay.ws_url, "--state-file", str(state), "--json")
        with subprocess.Popen(arguments, env=environment(), stdout=subprocess.PIPE, text=True) as tail:
            assert tail.stdout is not None
            item = json.loads(tail.stdout.readline())
            tail.terminate()
            rest = tail.stdout.read()
    assert (item["seq"], item["event"]["message"], rest) == (LAST + 1, "after the upgrade", "")


def test_a_cursor_of_another_stream_is_reset(server: NatsServer) -> None:
    """Cursors of streams that were recreated since are answered with ``reset``, as ever."""

    async def check(relay: Relay) -> None:
        async with follow(relay.ws_url, cursor=f"{int(EPOCH, 16) + 1:x}-40") as feed:
            (gap,) = only(feed.messages, Gap)
            assert gap.reason == "reset"

    with Relay(server.url) as relay:
        run(check(relay))


def test_the_fixture_is_that_of_0_1_0(server: NatsServer) -> None:
    """The streams have the layout of 0.1.0: no HEALTH, and components in LATEST."""

    async def names() -> list[str]:
        async with jetstream(server.url) as js:
            answer = json.loads((await js._nc.request("$JS.API.STREAM.NAMES")).data)
            return sorted(answer["streams"])

    assert asyncio.run(names()) == ["CHECKPOINTS", "EVENTS", "LATEST", "REJECTED", "WATCHDOG"]
