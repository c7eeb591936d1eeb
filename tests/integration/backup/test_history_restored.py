"""HISTORY in a restore: it is restored with EVENTS, and kept if the backup is of a version without it."""

import asyncio
import json
from pathlib import Path

import pytest
from tickertape.contracts.events import Status

from tests.support.clients.feed_client import PATIENCE, jetstream, publish, run, status
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer


def command(server: NatsServer, *arguments: str) -> None:
    """Run a command of ``tickertape streams``."""
    done = run_command("streams", *arguments, "--nats-url", server.url)
    assert done.returncode == 0, done.stdout + done.stderr


def publish_status(server: NatsServer, current: Status, copies: int) -> None:
    """Publish a status, and wait until HISTORY has a number of messages."""

    async def work() -> None:
        async with jetstream(server.url) as js, asyncio.timeout(PATIENCE):
            await publish(js, status("a", current))
            while (await js.stream_info("HISTORY")).state.messages != copies:
                await asyncio.sleep(0.02)

    run(work())


@pytest.mark.parametrize("earlier", [False, True], ids=["complete", "of an earlier version"])
def test_history_is_restored_or_kept(nats_server: NatsServer, tmp_path: Path, earlier: bool) -> None:
    """After a restore HISTORY has the statuses of the backup, or all that it had, and receives new ones."""
    command(nats_server, "apply")
    publish_status(nats_server, Status.HEALTHY, 1)
    command(nats_server, "backup", str(tmp_path / "backup"))
    if earlier:
        manifest = tmp_path / "backup" / "manifest.json"
        content = json.loads(manifest.read_text())
        content["streams"] = [one for one in content["streams"] if one["stream"] != "HISTORY"]
        manifest.write_text(json.dumps(content))
    publish_status(nats_server, Status.UNHEALTHY, 2)
    command(nats_server, "restore", str(tmp_path / "backup"), "--yes")
    # Either has the statuses of the restored EVENTS twice, which timelines count once.
    publish_status(nats_server, Status.DEGRADED, 4 if earlier else 3)
    command(nats_server, "apply")
    publish_status(nats_server, Status.HEALTHY, 5 if earlier else 4)
