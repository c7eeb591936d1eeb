"""A backup or a restore that is interrupted leaves a stated situation, and can be repeated."""

import asyncio
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from tickertape.contracts.events import format_time

from tests.integration.backup.test_bad_backups import EVENTS, SMALL, command, fill, state
from tests.support.clients.feed_client import connection as connect
from tests.support.clients.feed_client import follow, jetstream, line, publish, run, status
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay
from tests.support.servers.deployed_nats import ask
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.nats_versions import versions
from tickertape.cli import transfer_progress
from tickertape.cli.streams import StreamsSettings
from tickertape.cli.streams import run as run_streams
from tickertape.nats import connection, streams
from tickertape.nats.backup import lock
from tickertape.nats.errors import UnfinishedRestore


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Return a function that makes the next command do something in the middle of a step."""

    def arrange(step: str, action: Callable[[], object]) -> None:
        original = transfer_progress.TransferProgress.start
        done: list[str] = []

        def start(self: transfer_progress.TransferProgress, name: str, total: int) -> Callable[[int], None]:
            update = original(self, name, total)
            if name != step:
                return update

            def act(position: int) -> None:
                update(position)
                if not done:
                    done.append(step)
                    action()

            return act

        monkeypatch.setattr(transfer_progress.TransferProgress, "start", start)

    return arrange


@pytest.fixture
def backup(nats_server: NatsServer, tmp_path: Path) -> Path:
    """Make a backup of a few streams."""
    run(fill(nats_server.url))
    assert command(nats_server.url, "backup", str(tmp_path / "backup")) == 0
    return tmp_path / "backup"


async def check_closed(url: str) -> None:
    """Check that no stream accepts events, and that programs and ``streams apply`` wait for the restore."""
    client = await connection.connect_once(url, name="test")
    try:
        with pytest.raises((NatsError, TimeoutError)):
            await client.request("log.info.x", b"{}", timeout=0.5)
        for attempt in (streams.provision(client, SMALL), streams.apply(client, SMALL)):
            with pytest.raises(UnfinishedRestore, match="is not restored completely"):
                await attempt
    finally:
        await client.close()


def check_repeated(url: str, backup: Path) -> None:
    """Check that the same command completes the restore."""
    assert command(url, "restore", str(backup), yes=True) == 0
    assert run(state(url))["EVENTS"][1] == EVENTS

    async def work() -> None:
        client = await connection.connect_once(url, name="test")
        try:
            assert await streams.differences(client, SMALL) == []
            await client.request("log.info.x", b"{}", timeout=PATIENCE)
        finally:
            await client.close()

    run(work())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_restore_is_repeated(
    nats_server: NatsServer,
    backup: Path,
    number: signal.Signals,
    at_step: Callable[[str, Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """After a signal the output says what is the case; streams accept nothing until it is repeated."""
    at_step("restoring EVENTS", lambda: os.kill(os.getpid(), number))
    assert command(nats_server.url, "restore", str(backup), yes=True) == 128 + number
    printed = capsys.readouterr().err
    assert f"run 'tickertape streams restore {backup}' again" in printed
    assert f"interrupted by {number.name}" in printed
    run(check_closed(nats_server.url))
    # A backup of a part would replace the one that is needed.
    assert command(nats_server.url, "backup", str(backup.with_name("new"))) == 1
    assert "is not restored completely" in capsys.readouterr().err
    check_repeated(nats_server.url, backup)


def test_a_check_is_interrupted_without_an_effect(
    nats_server: NatsServer,
    backup: Path,
    at_step: Callable[[str, Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A signal while archives are checked ends the command, and deletes nothing."""
    before = run(state(nats_server.url))
    at_step("checking EVENTS", lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert command(nats_server.url, "restore", str(backup), yes=True) == 128 + signal.SIGTERM
    assert "again" not in capsys.readouterr().err
    assert run(state(nats_server.url)) == before


def test_nats_may_restart_during_a_restore(
    nats_server: NatsServer,
    backup: Path,
    at_step: Callable[[str, Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A restore fails when NATS is killed, and is repeated after its restart."""

    def restart() -> None:
        nats_server.kill()
        nats_server.start()

    at_step("restoring EVENTS", restart)
    assert command(nats_server.url, "restore", str(backup), yes=True) == 1
    printed = capsys.readouterr().err
    assert "the connection to NATS" in printed
    assert "the restore was not completed" in printed
    run(check_closed(nats_server.url))
    check_repeated(nats_server.url, backup)


@pytest.mark.parametrize("how", ["signal", "restart"])
def test_an_interrupted_backup_leaves_nothing(
    nats_server: NatsServer,
    tmp_path: Path,
    how: str,
    at_step: Callable[[str, Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """An interrupted backup leaves no folder behind, and can be repeated."""
    run(fill(nats_server.url))

    def restart() -> None:
        nats_server.kill()
        nats_server.start()

    interrupt = restart if how == "restart" else lambda: os.kill(os.getpid(), signal.SIGINT)
    at_step("backing up EVENTS", interrupt)
    code = command(nats_server.url, "backup", str(tmp_path / "backup"))
    assert code == (1 if how == "restart" else 128 + signal.SIGINT)
    assert "the backup was not completed" in capsys.readouterr().err
    assert not (tmp_path / "backup").exists()
    assert command(nats_server.url, "backup", str(tmp_path / "backup")) == 0


def test_one_restore_runs_at_a_time(
    nats_server: NatsServer, backup: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of two restores that start together one succeeds, and the other changes nothing."""
    before = run(state(nats_server.url))

    async def both() -> list[object]:
        settings = StreamsSettings(action="restore", folder=backup, yes=True, nats_url=nats_server.url)
        return await asyncio.gather(*(run_streams(settings) for _ in range(2)), return_exceptions=True)

    results = run(both())
    assert 0 in results
    (error,) = (result for result in results if result != 0)
    assert "another restore is running" in str(error)
    assert {name: last for name, (_, last) in run(state(nats_server.url)).items()} == {
        name: last for name, (_, last) in before.items()
    }


def test_a_restore_waits_for_no_one_after_it_has_ended(nats_server: NatsServer) -> None:
    """A lock ends with its process, and a running restore keeps it whichever command asks first."""

    async def check() -> None:
        async with connect(nats_server.url) as first, connect(nats_server.url) as second:
            async with lock.restore_lock(first, SMALL):
                for _ in range(3):
                    with pytest.raises(Exception, match="another restore is running"):
                        async with lock.restore_lock(second, SMALL):
                            pass
            async with lock.restore_lock(second, SMALL):
                pass

    run(check())


@pytest.mark.parametrize("version", versions())
def test_every_version_restores_what_it_has_backed_up(version: str, tmp_path: Path) -> None:
    """With a running relay that may create streams, too, a restore yields the streams of the backup."""

    async def check(relay: Relay, url: str) -> None:
        async with follow(relay.ws_url, mode="complete") as feed, jetstream(url) as js:
            await publish(js, status("a"))
            await publish(js, line("before"))
            await feed.until(lambda: len(feed.seqs()) >= 2)
            backup = str(tmp_path / "backup")
            assert await asyncio.to_thread(command, url, "backup", backup) == 0
            kept = {name: last for name, (_, last) in (await state(url)).items()}
            for number in range(5):
                await publish(js, status(f"new{number}"))
            await feed.until(lambda: len(feed.seqs()) >= 7)
            assert await asyncio.to_thread(command, url, "restore", backup, yes=True) == 0
            found = {name: last for name, (_, last) in (await state(url)).items()}
            assert found["EVENTS"] == kept["EVENTS"]
            assert found["LATEST"] >= kept["LATEST"]
            await publish(js, line("after"))
            feed.reset()
            await feed.until(lambda: any(message.type == "gap" for message in feed.messages))
        async with follow(relay.ws_url, since="earliest", mode="complete") as feed:
            await feed.until(lambda: len(feed.seqs()) >= 3)
            assert feed.seqs() == [1, 2, 3]
        async with follow(relay.ws_url) as feed:
            snapshots = [message for message in feed.messages if message.type == "snapshot"]
            assert [item.event["gateway_id"] for message in snapshots for item in message.events] == ["a"]

    with (
        NatsServer(tmp_path / "nats", binary=versions()[version]) as nats,
        Relay(nats.url, "--client-rate", "0") as relay,
    ):
        run(check(relay, nats.url))
        assert relay.stop() == 0


# NATS 2.12.8 fires the switch, but EVENTS rejects it: "message schedules is disabled".
@pytest.mark.parametrize("version", [version for version in versions() if version != "2.12"])
def test_each_switch_fires_once(version: str, tmp_path: Path) -> None:
    """A switch that fired before the backup does not fire again; one that is due after it fires once."""

    async def fired(js: JetStreamContext, gateway: str) -> int:
        found = await ask(clients[0], "$JS.API.STREAM.INFO.EVENTS", {"subjects_filter": "gateway.status.>"})
        return int((found["state"].get("subjects") or {}).get(f"gateway.status.ctp.{gateway}", 0))

    async def arm(js: JetStreamContext, gateway: str, seconds: float) -> None:
        headers = {
            "Nats-Schedule": f"@at {format_time(time.time() + seconds)}",
            "Nats-Schedule-Target": f"watchdog.fired.ctp.{gateway}",
        }
        await js.publish(f"watchdog.armed.ctp.{gateway}", b"{}", headers=headers)

    async def until_fired(js: JetStreamContext, gateway: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while not await fired(js, gateway):
                await asyncio.sleep(0.05)

    clients: list[Client] = []

    async def check(url: str) -> None:
        async with jetstream(url) as js, connect(url) as client:
            clients.append(client)
            await arm(js, "past", 2.0)
            await until_fired(js, "past")
            await arm(js, "due", 10.0)
            backup = str(tmp_path / "backup")
            assert await asyncio.to_thread(command, url, "backup", backup) == 0
            assert await fired(js, "due") == 0
            assert await asyncio.to_thread(command, url, "restore", backup, yes=True) == 0
            await until_fired(js, "due")
            await publish(js, line("later"))
            assert (await fired(js, "past"), await fired(js, "due")) == (1, 1)

    with NatsServer(tmp_path / "nats", binary=versions()[version]) as nats:
        run(fill(nats.url))
        run(check(nats.url))


def test_a_newer_server_restores_an_older_backup_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A backup of an earlier version is restored by the newest; the reverse is rejected."""
    found = versions()
    if "2.12" not in found:
        pytest.skip("needs nats-server 2.12; 'make' installs it")
    for version in ("2.12", "newest"):
        with NatsServer(tmp_path / version, binary=found[version]) as nats:
            run(fill(nats.url))
            assert command(nats.url, "backup", str(tmp_path / f"of-{version}")) == 0
    with NatsServer(tmp_path / "new", binary=found["newest"]) as nats:
        check_repeated(nats.url, tmp_path / "of-2.12")
    with NatsServer(tmp_path / "old", binary=found["2.12"]) as nats:
        assert command(nats.url, "restore", str(tmp_path / "of-newest"), yes=True) == 1
        assert "cannot read snapshots of nats-server 2.15" in capsys.readouterr().err
