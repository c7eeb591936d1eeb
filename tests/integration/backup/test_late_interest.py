"""A restore in a cluster, where the subscription of the server may become known after its reply.

The test plays JetStream on a server without it, so that the first chunk is certain to come too early.
"""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import orjson
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from tests.support.clients.feed_client import run
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.nats import connection
from tickertape.nats.backup import transfer
from tickertape.nats.backup.folder import HashedFile
from tickertape.nats.backup.manifest import BackupError, StreamBackup

CONTENT = bytes(range(256)) * 2048
STATE = {"messages": 1}
ARCHIVE = StreamBackup(
    "LATEST", {"name": "LATEST"}, STATE, 1, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "tar.s2", 1
)


@asynccontextmanager
async def two_clients(folder: Path) -> AsyncIterator[tuple[Client, Client]]:
    """Connect the server that is played, which accepts a restore, and a client."""
    with NatsServer(folder / "nats", jetstream=False) as server:
        played = await connection.connect_once(server.url, name="played")
        client = await connection.connect_once(server.url, name="client")

        async def accept(message: Msg) -> None:
            await message.respond(orjson.dumps({"deliver_subject": "chunks"}))

        await played.subscribe("$JS.API.STREAM.RESTORE.LATEST", cb=accept)
        await played.flush()
        try:
            yield played, client
        finally:
            await connection.close(client)
            await connection.close(played)


async def restore(client: Client, folder: Path) -> dict[str, object]:
    """Restore a stream from the archive, and return its state."""
    path = folder / "archive"
    path.write_bytes(CONTENT)
    archive = HashedFile(os.open(path, os.O_RDONLY))
    try:
        return await transfer.upload(client, ARCHIVE, {"name": "LATEST"}, archive, lambda _: None)
    finally:
        archive.close()


def test_a_chunk_that_comes_too_early_is_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The archive arrives whole and in order, although nothing received the first chunk at first."""
    monkeypatch.setattr(transfer, "_POLL_INTERVAL", 0.05)
    received: list[bytes] = []

    async def receive(message: Msg) -> None:
        received.append(message.data)
        await message.respond(b"" if message.data else orjson.dumps({"state": STATE}))

    async def main() -> None:
        async with two_clients(tmp_path) as (played, client), asyncio.timeout(PATIENCE):
            task = asyncio.create_task(restore(client, tmp_path))
            while client.stats["out_msgs"] < 2:  # the request, and the chunk that is lost
                await asyncio.sleep(0.005)
            await client.flush()
            await played.subscribe("chunks", cb=receive)
            assert await task == STATE

    run(main())
    assert b"".join(received) == CONTENT


def test_a_restore_that_no_server_receives_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a receiver the restore ends with a line, in place of an archive that is taken for sent."""
    monkeypatch.setattr(transfer, "_POLL_INTERVAL", 0.05)
    monkeypatch.setattr(transfer, "FIRST_ATTEMPTS", 2)

    async def main() -> None:
        async with two_clients(tmp_path) as (_, client):
            with pytest.raises(BackupError, match="no server receives the archive of stream LATEST"):
                await restore(client, tmp_path)

    run(main())
