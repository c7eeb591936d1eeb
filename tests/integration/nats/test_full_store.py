"""A full, read-only or limited store of NATS: each program names the cause, and continues afterwards.

The disk is a small tmpfs. ``tests/chaos/test_full_disk.py`` runs monitor and shipper as well.
"""

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from tickertape.contracts.events import SystemLog
from tickertape.producers.sdk.errors import PublishError
from tickertape.producers.sdk.publisher import Publisher

from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually, run
from tests.support.servers.nats_server import NatsServer, free_port, limited_account
from tests.support.servers.small_disk import SmallDisk, small_disk
from tickertape.names import Names
from tickertape.nats import connection
from tickertape.nats.jetstream_api import request
from tickertape.nats.streams import provision

SIZES = "EVENTS=24MiB,LATEST=1MiB,HEALTH=1MiB,WATCHDOG=1MiB,CHECKPOINTS=1MiB,REJECTED=1MiB,HISTORY=1MiB"


def get(url: str) -> tuple[int, str]:
    """Return status and body of a page."""
    try:
        with urlopen(url, timeout=PATIENCE) as page:
            return page.status, page.read().decode()
    except HTTPError as error:
        return error.code, error.read().decode()


def event(number: int) -> SystemLog:
    """Return an event of a recognizable size."""
    return SystemLog(level="INFO", message="x" * 4000, source="full", metadata={"number": number})


async def stored_numbers(url: str) -> list[int]:
    """Return the numbers of all stored events, sorted: one that is sent again may be stored late."""
    client = await connection.connect(url, name="reader")
    try:
        consumer = await client.jetstream().subscribe("log.info.full", ordered_consumer=True)
        numbers: list[int] = []
        while True:
            message = await consumer.next_msg(timeout=PATIENCE)
            numbers.append(json.loads(message.data)["metadata"]["number"])
            if message.metadata.num_pending == 0:
                return sorted(numbers)
    finally:
        await connection.close(client)


async def publish_until_stalled(publisher: Publisher, acknowledged: list[int]) -> list[asyncio.Task[None]]:
    """Publish events concurrently until NATS stores nothing more; return those that still wait."""

    async def publish(number: int) -> None:
        await publisher.publish(event(number), msg_id=f"full-{number}")
        acknowledged.append(number)

    tasks: list[asyncio.Task[None]] = []
    while not publisher.stalled:
        tasks.append(asyncio.create_task(publish(len(tasks))))
        while publisher.pending > 100 and not publisher.stalled:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0)
    return tasks


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_embedded_server_recovers_from_a_full_disk(tmp_path: Path, workers: str) -> None:
    """The relay stays ready and names the cause; with space, everything continues by itself, and nothing
    that was acknowledged is lost."""
    with (
        small_disk(tmp_path / "disk", "64m") as disk,
        Relay(
            None, "--data-dir", str(disk.path), "--nats-port", str(free_port()), "--workers", workers,
            TICKERTAPE_STREAMS_MAX_BYTES=SIZES,
        ) as relay,
    ):  # fmt: skip
        disk.fill()
        asyncio.run(fill_and_recover(relay, disk))


async def fill_and_recover(relay: Relay, disk: SmallDisk) -> None:
    """Publish on a full disk, observe the relay, free the disk, and compare what is stored."""
    lines: list[str] = []
    acknowledged: list[int] = []
    async with asyncio.timeout(4 * PATIENCE):
        async with Publisher(relay.nats_url, deadline=100.0, on_stall=lines.append) as publisher:
            tasks = await publish_until_stalled(publisher, acknowledged)
            assert "restart nats-server" in lines[0]
            assert "permission" not in lines[0]
            await asyncio.to_thread(observe_failure, relay)
            checked = await asyncio.to_thread(check, relay, disk)
            assert checked["nats_store"]["state"] == "error"
            assert "its disk is full" in checked["nats_store"]["text"]
            assert "its disk is full" in checked["ops_port"]["text"]
            disk.free()
            await asyncio.gather(*tasks)
            assert lines[-1] == "NATS stores events again"
        await asyncio.to_thread(observe_recovery, relay)
        numbers = await stored_numbers(relay.nats_url)
    assert numbers == sorted(acknowledged) == list(range(len(tasks)))
    assert any("restarting the embedded nats-server" in line for line in relay.log)


def check(relay: Relay, disk: SmallDisk) -> dict[str, Any]:
    """Return the findings of ``tickertape check`` by name."""
    port, ops_port = relay.url.rpartition(":")[2], relay.ops_url.rpartition(":")[2]
    done = run(
        "check", "--json", "--data-dir", str(disk.path), "--nats-port", relay.nats_url.rpartition(":")[2],
        "--port", port, "--ops-port", ops_port,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    return {finding["name"]: finding for finding in json.loads(done.stdout)["checks"]}


def observe_failure(relay: Relay) -> None:
    """Wait until the relay names the cause everywhere, while it stays ready."""
    eventually(lambda: "its disk is full" in get(f"{relay.ops_url}/readyz")[1], "/readyz names the cause")
    status, text = get(f"{relay.ops_url}/readyz")
    assert status == 200
    assert text.startswith("ready: nats-server cannot store events: its disk is full (")
    assert text.endswith("free space, then restart nats-server\n")
    status, text = get(f"{relay.url}/health")
    assert (status, json.loads(text)["status"], json.loads(text)["store"]) == (200, "degraded", "disk_full")
    assert "tickertape_nats_store_writable 0.0" in get(f"{relay.ops_url}/metrics")[1]
    assert "its disk is full" in get(f"{relay.ops_url}/statusz")[1]
    assert any("ERROR" in line and "its disk is full" in line for line in relay.log)


def observe_recovery(relay: Relay) -> None:
    """Wait until the relay reports that everything works."""
    eventually(lambda: get(f"{relay.ops_url}/readyz") == (200, "ready\n"), "/readyz has no problem")
    assert json.loads(get(f"{relay.url}/health")[1])["status"] == "ok"
    assert "tickertape_nats_store_writable 1.0" in get(f"{relay.ops_url}/metrics")[1]


def test_a_quota_is_named_and_left_behind(tmp_path: Path) -> None:
    """An account that is full rejects events; the publisher waits, and continues without a restart."""
    port = free_port()
    config = f'http: "127.0.0.1:{port}"\n'
    with NatsServer(tmp_path / "nats", config=config + limited_account("max_file: 8M")) as server:
        sizes = {"EVENTS": 1 << 20} | dict.fromkeys(("LATEST", "HEALTH", "WATCHDOG"), 1 << 20)
        sizes |= dict.fromkeys(("CHECKPOINTS", "REJECTED", "HISTORY"), 1 << 20)
        asyncio.run(remove_limit(server.url, Names("", sizes)))
        with Relay(server.url, "--nats-monitoring-url", f"http://127.0.0.1:{port}") as relay:
            lines: list[str] = []

            async def main() -> None:
                async with asyncio.timeout(4 * PATIENCE):
                    async with Publisher(server.url, deadline=100.0, on_stall=lines.append) as publisher:
                        acknowledged: list[int] = []
                        tasks = await publish_until_stalled(publisher, acknowledged)
                        await asyncio.to_thread(
                            eventually,
                            lambda: "storage quota" in get(f"{relay.ops_url}/readyz")[1],
                            "/readyz names the quota",
                        )
                        server.config = config + limited_account("max_file: 64M")
                        server.write_config(server.port)
                        server.reload()
                        await asyncio.gather(*tasks)
                    assert await stored_numbers(server.url) == list(range(len(tasks)))

            asyncio.run(main())
            assert "the storage quota of the account is used up" in lines[0]
            assert "code 10002" in lines[0]
            assert "max_file" in lines[0]


async def remove_limit(url: str, names: Names) -> None:
    """Create the streams, and let EVENTS grow without a limit, as an operator may."""
    client = await connection.connect(url, name="operator")
    try:
        await provision(client, names)
        info = await request(client, "STREAM.INFO.EVENTS")
        config = {**info["config"], "max_bytes": -1}
        assert "error" not in await request(client, "STREAM.UPDATE.EVENTS", config)
    finally:
        await connection.close(client)


def test_a_full_disk_is_named_by_the_publisher(tmp_path: Path) -> None:
    """``tickertape publish`` fails with the cause, not with a hint about permissions."""
    with (
        small_disk(tmp_path / "disk", "16m") as disk,
        NatsServer(disk.path / "nats") as server,
    ):
        sizes = dict.fromkeys(
            ("EVENTS", "LATEST", "HEALTH", "WATCHDOG", "CHECKPOINTS", "REJECTED", "HISTORY"), 4 << 20
        )

        async def main() -> None:
            client = await connection.connect(server.url, name="operator")
            await provision(client, Names("", sizes))
            await connection.close(client)
            disk.fill()
            async with asyncio.timeout(PATIENCE), Publisher(server.url, deadline=1.0) as publisher:
                with suppress(PublishError):
                    while True:
                        await publisher.publish(event(1))

        asyncio.run(main())
        text = '{"level": "INFO", "message": "x", "source": "cli"}'
        done = run("publish", "log.info.cli", text, "--nats-url", server.url, "--deadline", "3")
        assert done.returncode == 1
        assert "nats-server cannot write its store" in done.stderr
        assert "free space, then restart nats-server" in done.stderr
        assert "permission" not in done.stderr
