"""Restores in a cluster with three replicas: over existing streams, on new servers, and on a single one."""

from pathlib import Path
from typing import Final

from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import APIError

from tests.integration.deploy.test_deploy_cluster import STREAMS, apply, copies, publish
from tests.support.clients.feed_client import run
from tests.support.programs.relay_process import eventually
from tests.support.programs.relay_process import run as run_command
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.nats_sites import Site, access, options, three
from tickertape.nats import connection
from tickertape.nats.streams import stream_info

EVENTS: Final = 5

REQUEST_TIMEOUT: Final = 10.0
"""Seconds to wait for an answer of the cluster before the request is sent again."""


def join(sites: list[Site]) -> str:
    """Return the addresses of all servers, once their cluster can place three copies of a stream."""
    eventually(lambda: any("metadata leader" in site.log for site in sites), "JetStream has a leader")
    url = ",".join(site.url for site in sites)
    eventually(lambda: run(can_place(url)), "no server is offline for the leader")
    return url


async def can_place(url: str) -> bool:
    """Return whether a stream with three copies can be created; it is deleted again.

    A cluster that elects a leader at this moment loses a request without an answer.
    """
    client = await connection.connect_once(url, name="test", access=access("operator"))
    try:
        js = client.jetstream(timeout=REQUEST_TIMEOUT)
        await js.add_stream(name="REJECTED", subjects=["rejected.>"], num_replicas=3)
        return await js.delete_stream("REJECTED")
    except (APIError, NatsTimeoutError):
        return False
    finally:
        await connection.close(client)


def streams_command(url: str, folder: Path, *arguments: str) -> str:
    """Run ``tickertape streams`` as the operator, and return its output."""
    done = run_command("streams", *arguments, "--nats-url", url, *options("operator", folder))
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def last_sequence(url: str) -> int:
    """Return the last sequence of EVENTS."""
    client = await connection.connect_once(url, name="test", access=access("operator"))
    try:
        info = await stream_info(client, "EVENTS")
        assert info is not None
        return int(info["state"]["last_seq"])
    finally:
        await connection.close(client)


def test_a_backup_of_three_replicas_is_restored_anywhere(tmp_path: Path) -> None:
    """A cluster restores a backup over its streams; so do three new servers, and a single one."""
    backup = str(tmp_path / "backup")
    everywhere = dict.fromkeys(STREAMS, (3, 3))
    with three(tmp_path / "first") as sites:
        url = join(sites)
        apply(url, tmp_path, "--replicas", "3")
        for number in range(EVENTS):
            run(publish(url, str(number)))
        streams_command(url, tmp_path, "backup", backup)
        run(publish(url, "later"))
        streams_command(url, tmp_path, "restore", backup, "--yes")
        assert run(last_sequence(url)) == EVENTS
        eventually(lambda: run(copies(url)) == everywhere, "three copies are up to date")
        run(publish(url, "after"))
    with three(tmp_path / "second") as sites:
        url = join(sites)
        streams_command(url, tmp_path, "restore", backup, "--yes")
        eventually(lambda: run(copies(url)) == everywhere, "three copies are up to date")
        sites[0].kill()
        eventually(lambda: run(last_sequence(url)) == EVENTS, "the others have the events")
    with NatsServer(tmp_path / "third") as server:
        done = run_command("streams", "restore", backup, "--yes", "--nats-url", server.url)
        assert "restore with --replicas 1" in done.stderr
        done = run_command("streams", "restore", backup, "--replicas", "1", "--nats-url", server.url)
        assert done.returncode == 0, done.stderr
