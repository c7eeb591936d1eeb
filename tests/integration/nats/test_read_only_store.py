"""A store of NATS that is read-only: while the server runs, and when an embedded one starts."""

import asyncio
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tickertape.producers.sdk.publisher import Publisher

from tests.integration.nats.test_full_store import event, get, stored_numbers
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, eventually, run
from tests.support.servers.nats_server import NatsServer, find_binary, free_port
from tests.support.servers.small_disk import small_disk

CAPABILITIES = "-dac_override,-dac_read_search"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Run a server to which file permissions apply, also if the tests run as root."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        reason = "needs setpriv, which drops root's right to write everywhere"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    prefix = f"setpriv --bounding-set={CAPABILITIES} --inh-caps=-all" if os.geteuid() == 0 else ""
    program = tmp_path / "nats-server"
    program.write_text(f'#!/bin/sh\nexec {prefix} "{find_binary()}" "$@"\n')
    program.chmod(0o755)
    config = f'http: "127.0.0.1:{free_port()}"'
    with NatsServer(tmp_path / "nats", config=config, binary=program) as running:
        yield running


def test_a_store_that_becomes_read_only_is_named(server: NatsServer) -> None:
    """NATS then disables JetStream; the relay and the publisher say why, and continue after a restart."""
    address = server.config.partition('"')[2].strip('"')
    with Relay(server.url, "--nats-monitoring-url", f"http://{address}") as relay:
        folders = [path for path in (server.folder / "data").rglob("*") if path.is_dir()]

        async def main() -> None:
            lines: list[str] = []
            async with (
                asyncio.timeout(4 * PATIENCE),
                Publisher(server.url, deadline=100.0, on_stall=lines.append) as publisher,
            ):
                await publisher.publish(event(0), msg_id="0")
                for folder in folders:
                    folder.chmod(0o500)
                number = 0
                tasks = []
                # Only the next block of the stream is a new file.
                while not lines:
                    number += 1
                    tasks.append(asyncio.create_task(publisher.publish(event(number), msg_id=str(number))))
                    while publisher.pending > 200 and not lines:
                        await asyncio.sleep(0.05)
                    await asyncio.sleep(0)
                assert "cannot write its store" in lines[0]
                await asyncio.to_thread(observe, relay)
                for folder in folders:
                    folder.chmod(0o700)
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
                await asyncio.gather(*tasks)
                assert await stored_numbers(server.url) == list(range(number + 1))
                await asyncio.to_thread(
                    eventually, lambda: get(f"{relay.ops_url}/readyz") == (200, "ready\n"), "it recovers"
                )

        asyncio.run(main())


def observe(relay: Relay) -> None:
    """Wait until the relay names the cause; without JetStream it may not receive events either."""
    eventually(
        lambda: "it has disabled JetStream" in get(f"{relay.ops_url}/readyz")[1], "/readyz names the cause"
    )
    health = json.loads(get(f"{relay.url}/health")[1])
    assert health["store"] == "jetstream_disabled"
    assert health["status"] != "ok"
    assert "tickertape_nats_store_writable 0.0" in get(f"{relay.ops_url}/metrics")[1]


@pytest.mark.parametrize(("state", "reason"), [("full", "No space left"), ("read-only", "Read-only file")])
def test_an_embedded_server_does_not_start_without_a_writable_disk(
    tmp_path: Path, state: str, reason: str
) -> None:
    """The relay names the directory and the cause, and exits."""
    with small_disk(tmp_path / "disk", "1m") as disk:
        if state == "full":
            disk.fill()
        else:
            disk.remount("ro")
        done = run(
            "serve", "--data-dir", str(disk.path), "--nats-port", "0", "--port", "0", "--ops-port", "0"
        )
    assert done.returncode == 1
    assert f"data directory {disk.path} cannot be used: {reason}" in done.stderr
    assert "free space" in done.stderr if state == "full" else "make its disk writable" in done.stderr
    assert "Traceback" not in done.stderr
