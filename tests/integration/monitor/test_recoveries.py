"""Recoveries and limits that hold over several monitors and their restarts, on a real NATS server."""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from tickertape.producers.monitor.config import watched_file
from tickertape.producers.monitor.coordination import dead_mans_switch, election, silences
from tickertape.producers.monitor.coordination.limits import Limits

from tests.integration.monitor.test_monitor import Statuses, hold, listening, serving
from tests.integration.monitor.test_votes import fleet, until, write_file
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer, free_port
from tickertape.names import Names
from tickertape.nats import connection


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew leases more often, and disable the dead man's switch, which a busy machine would trigger."""
    monkeypatch.setattr(election, "RENEW_INTERVAL", 0.2)
    monkeypatch.setattr(dead_mans_switch, "MIN_TIMEOUT", 600.0)


async def read_steps(statuses: Statuses) -> list[dict[str, Any]]:
    """Return all recovery events of the gateway, in their order."""
    names, after = statuses._names, 0
    found: list[dict[str, Any]] = []
    while True:
        query = {"seq": after + 1, "next_by_subj": names.subject("gateway.recovery.ctp.main")}
        subject = f"$JS.API.DIRECT.GET.{names.stream('EVENTS')}"
        reply = await statuses._client.request(subject, orjson.dumps(query), timeout=PATIENCE)
        if (reply.headers or {}).get("Status"):
            return found
        after = int((reply.headers or {})["Nats-Sequence"])
        found.append(orjson.loads(reply.data))


async def until_step(statuses: Statuses, *expected: str) -> dict[str, Any]:
    """Wait until the phases of all recovery events end with these, and return the latest event."""
    async with asyncio.timeout(PATIENCE):
        while True:
            events = await read_steps(statuses)
            phases = [f"{event['phase']} {event['attempt']}" for event in events]
            if phases[-len(expected) :] == list(expected):
                return events[-1]
            await asyncio.sleep(0.05)


def lines(path: Path) -> list[str]:
    """Return the lines that a command has written so far."""
    return path.read_text().split() if path.exists() else []


def recovery(command: str, **settings: object) -> str:
    """Return the settings of a recovery that runs a shell command."""
    options = "".join(f", {key}: {value}" for key, value in settings.items())
    return f"recovery: {{command: [sh, -c, '{command}']{options}}}, "


def test_of_many_takers_each_slot_has_one(nats_url: str, nats_prefix: str) -> None:
    """Twenty monitors that compete for four slots get four; a higher limit leaves those taken."""
    names = Names(nats_prefix)

    async def main() -> None:
        async with listening(nats_url, nats_prefix):
            clients = [await connection.connect(nats_url, name=f"t{number}") for number in range(4)]
            takers = [Limits(clients[number % 4], names, print) for number in range(20)]

            async def take(slots: int) -> list[bool | None]:
                owner = ("10.0.9.4:9880", "DESK1")
                return await asyncio.gather(*(taker.take("logon", owner, slots) for taker in takers))

            assert sorted(map(str, await take(4))) == ["False"] * 16 + ["True"] * 4
            assert (await take(3)).count(False) == 20
            assert (await take(6)).count(True) == 2
            assert await takers[0].take("logon", ("x" * 300, "DESK2"), 1)
            for client in clients:
                await connection.close(client)

    asyncio.run(main())


def test_without_nats_no_slot_is_taken(nats_server: NatsServer) -> None:
    """It is unknown whether a slot is free, so nothing may be attempted."""

    async def main() -> bool | None:
        async with listening(nats_server.url):
            client = await connection.connect(nats_server.url, name="taker")
            nats_server.stop()
            await until(lambda: not client.is_connected)
            taken = await Limits(client, Names(""), print).take("logon", ("a", "b"), 4)
            nats_server.start()
            await connection.close(client)
            return taken

    assert asyncio.run(main()) is None


def test_a_recovery_is_continued_when_its_monitor_dies(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """The other monitor makes the attempts that remain, each once, and the numbers continue."""
    tried = tmp_path / "tried"
    more = recovery(f"echo $TICKERTAPE_ATTEMPT >> {tried}", backoff="1s", attempts=2)

    async def main() -> None:
        ports = {"main": free_port()}
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            monitors.monitor("m1", ports, more),
            monitors.monitor("m2", ports, more),
        ):
            first = await until_step(statuses, "started 0", "attempt 1")
            await until(lambda: lines(tried) == ["1"])
            await monitors.kill(first["metadata"]["monitor"])
            second = await until_step(statuses, "started 0", "attempt 1", "attempt 2")
            assert {first["metadata"]["monitor"], second["metadata"]["monitor"]} == {"m1", "m2"}
            await until_step(statuses, "attempt 2", "failed 2")
            assert lines(tried) == ["1", "2"]

    asyncio.run(main())


def test_a_restarted_monitor_continues_its_recovery(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """After a restart, a recovery neither starts over nor makes an attempt again."""
    tried = tmp_path / "tried"
    more = recovery(f"echo $TICKERTAPE_ATTEMPT >> {tried}", backoff="500ms", attempts=2)

    async def main() -> None:
        ports = {"main": free_port()}
        async with fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses):
            async with monitors.monitor("m1", ports, more):
                await until_step(statuses, "started 0", "attempt 1")
                await until(lambda: lines(tried) == ["1"])
            async with monitors.monitor("m1", ports, more):
                await until_step(statuses, "started 0", "attempt 1", "attempt 2", "failed 2")
        assert lines(tried) == ["1", "2"]

    asyncio.run(main())


def test_a_silence_stops_a_recovery(nats_url: str, nats_prefix: str, tmp_path: Path) -> None:
    """The command of the attempt is killed, and nothing is attempted until the silence ends."""
    pids = tmp_path / "pids"
    more = recovery(f"echo $$ >> {pids}; exec sleep 600", attempts=9, timeout="10m")

    async def main() -> None:
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            monitors.monitor("m1", {"main": free_port()}, more),
        ):
            await until_step(statuses, "started 0", "attempt 1")
            await until(lambda: lines(pids))
            await silences.set_silence(statuses._client, Names(nats_prefix), "main", 60.0, "test")
            failed = await until_step(statuses, "attempt 1", "failed 1")
            assert failed["metadata"]["reason"] == "silenced"
            await until(lambda: not os.path.exists(f"/proc/{lines(pids)[0]}"))
            await silences.set_silence(statuses._client, Names(nats_prefix), "main", 0.0, "test")
            await until_step(statuses, "failed 1", "started 0", "attempt 1")

    asyncio.run(main())


def test_the_limit_per_hour_holds_over_monitors_and_restarts(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """A monitor that starts later, or again, makes no attempt beyond the limit."""
    tried = tmp_path / "tried"
    more = recovery(f"echo x >> {tried}", backoff="50ms", attempts=9, per_hour=2)
    limited = ("started 0", "failed 0")

    async def main() -> None:
        port = free_port()
        async with fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses):
            async with monitors.monitor("m1", {"main": port}, more):
                event = await until_step(statuses, "attempt 1", "attempt 2", "failed 2")
                assert event["metadata"]["reason"] == "limit of 2 attempts per hour reached"
            for monitor in ("m1", "m2"):
                async with serving(hold, port), monitors.monitor(monitor, {"main": port}, more):
                    await statuses.until("main", "HEALTHY")
                async with monitors.monitor(monitor, {"main": port}, more):
                    await statuses.until("main", "UNHEALTHY")
                    await until_step(statuses, *limited)
        assert len(lines(tried)) == 2

    asyncio.run(main())


def test_a_new_label_restarts_nothing(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A label is changed in place: probes, view and recovery stay, and new probes keep the recovery."""
    monkeypatch.setattr(watched_file, "STABLE_AFTER", 0.0)
    pids, path = tmp_path / "pids", tmp_path / "m1.yaml"
    more = recovery(f"echo $$ >> {pids}; exec sleep 600", attempts=9, timeout="10m")
    subject = "gateway.status.ctp.main"

    async def main() -> None:
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            monitors.monitor("m1", {"main": free_port()}, more) as monitor,
        ):
            await until_step(statuses, "started 0", "attempt 1")
            await until(lambda: lines(pids))
            before = monitor._monitored[subject]
            write_file(path, {"main": free_port()}, f"labels: {{site: sh}}, {more}")
            await until(lambda: monitor._monitored[subject].gateway.labels == {"site": "sh"})
            changed = monitor._monitored[subject]
            assert changed is not before, "the port has changed"
            assert changed.attempt is not None
            assert not changed.attempt.done()
            text = path.read_text()
            path.write_text(text.replace("site: sh", "site: bj"))
            await until(lambda: changed.gateway.labels == {"site": "bj"})
            assert monitor._monitored[subject] is changed
            assert not any(task.done() for task in changed.tasks)
            assert lines(pids)[1:] == []
            # Without a recovery in the file, the one in progress ends.
            write_file(path, {"main": free_port()})
            failed = await until_step(statuses, "attempt 1", "failed 1")
            assert failed["metadata"]["reason"] == "no longer configured"
            await until(lambda: not os.path.exists(f"/proc/{lines(pids)[0]}"))

    asyncio.run(main())
