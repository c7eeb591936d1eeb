"""Monitors of the same gateways that see different things, on a real NATS server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor.config import watched_file
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.coordination import dead_mans_switch, election
from tickertape.producers.monitor.coordination.limits import Limits
from tickertape.producers.monitor.gateway import state
from tickertape.producers.monitor.monitor import Monitor
from tickertape.producers.sdk.publisher import Publisher

from tests.integration.monitor.test_monitor import Statuses, hold, listening, serving
from tests.support.patience import PATIENCE
from tests.support.servers.cable import cable
from tests.support.servers.nats_server import NatsServer, free_port
from tests.support.servers.nats_versions import versions
from tickertape.names import Names
from tickertape.nats.streams import StreamsError

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Renew leases more often, and disable the dead man's switch, which a busy machine would trigger."""
    monkeypatch.setattr(election, "RENEW_INTERVAL", 0.2)
    monkeypatch.setattr(dead_mans_switch, "MIN_TIMEOUT", 600.0)


class Fleet:
    """Monitors in this process, each with a file of its own."""

    def __init__(self, url: str, prefix: str, folder: Path) -> None:
        self.url = url
        self.prefix = prefix
        self._folder = folder
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def kill(self, id: str) -> None:
        """End a monitor, which releases no lease."""
        task = self._tasks.pop(id)
        task.cancel()
        await asyncio.wait({task})

    @contextlib.asynccontextmanager
    async def monitor(
        self, id: str, ports: dict[str, int], more: str = "", *, url: str = "", name: str = ""
    ) -> AsyncIterator[Monitor]:
        """Run a monitor.

        Args:
            id: id of the monitor.
            ports: port of each gateway, as this monitor reaches it.
            more: further settings of each gateway.
            url: address of NATS, if it is not that of the fleet.
            name: name of its file; the id by default.
        """
        path = self._folder / f"{name or id}.yaml"
        write_file(path, ports, more)
        async with Publisher(url or self.url, prefix=self.prefix, name=id) as publisher:
            monitor = Monitor(id, path, load(path), publisher, Names(self.prefix), 60.0)
            stop = asyncio.Event()
            task = self._tasks[id] = asyncio.create_task(monitor.run(stop))
            try:
                await until(lambda: monitor.decisions.holds_lease or task.done())
                if task.done():
                    task.result()
                yield monitor
                stop.set()
                if not task.cancelled():
                    await task
            finally:
                task.cancel()
                await asyncio.wait({task})
                await publisher.close(0.0)


def write_file(path: Path, ports: dict[str, int], more: str = "") -> None:
    """Write the file of a monitor."""
    lines = ["defaults: {interval: 50ms, timeout: 30s, unhealthy_after: 2, healthy_after: 1}", "gateways:"]
    for gateway, port in ports.items():
        probe = f"{{kind: tcp, address: '127.0.0.1:{port}', label: tcp}}"
        lines.append(f"  - {{id: {gateway}, type: ctp, {more}probes: [{probe}]}}")
    path.write_text("\n".join(lines))


async def until(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.01)


def view(monitor: Monitor, gateway: str) -> Status:
    """Return the own view of a monitor."""
    return monitor._monitored[f"gateway.status.ctp.{gateway}"].own.status


def dissent(monitor: Monitor, gateway: str) -> int:
    """Return how many monitors disagree with the published status, as a monitor sees it."""
    return monitor.decisions.dissent(monitor._monitored[f"gateway.status.ctp.{gateway}"])


async def probed(monitor: Monitor, times: int = 20) -> None:
    """Wait until a monitor has probed its gateways a number of times more."""
    before = monitor.scheduler.probes_run
    await until(lambda: monitor.scheduler.probes_run >= before + times)


@contextlib.asynccontextmanager
async def fleet(url: str, prefix: str, folder: Path) -> AsyncIterator[tuple[Fleet, Statuses]]:
    async with listening(url, prefix) as statuses:
        yield Fleet(url, prefix, folder), statuses


def test_of_three_monitors_one_is_wrong_and_one_is_cut_off(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """One that cannot reach half of the gateways, and one without NATS, cause and hide no transition."""

    async def main() -> None:
        closed, far, port = free_port(), free_port(), int(nats_url.rpartition(":")[2])
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            cable(port) as wire,
            serving(hold) as near,
            contextlib.AsyncExitStack() as upstream,
        ):
            await upstream.enter_async_context(serving(hold, far))
            everything = {"near": near, "far": far}
            async with (
                monitors.monitor("m1", everything, url=f"nats://127.0.0.1:{wire.port}") as cut_off,
                monitors.monitor("m2", everything) as right,
            ):
                await statuses.until("far", "UNKNOWN", "HEALTHY")
                await statuses.until("near", "UNKNOWN", "HEALTHY")
                async with monitors.monitor("m3", {"near": near, "far": closed}) as wrong:
                    await until(lambda: dissent(right, "far") == 1)
                    wire.cut()
                    await until(lambda: right.decisions.peers == 1)
                    assert not cut_off.decisions.may_publish
                    # One says that it is up, and one that it is down.
                    await probed(right)
                    await upstream.aclose()
                    await statuses.until("far", "UNHEALTHY")
                    await until(lambda: view(cut_off, "far") is Status.UNHEALTHY)
                    wire.repair()
                    await until(lambda: cut_off.decisions.holds_lease and right.decisions.peers == 2)
                    await until(lambda: dissent(right, "far") == 0)
                    await probed(wrong)
            await statuses.read()
            assert statuses.of("far") == ["UNKNOWN", "HEALTHY", "UNHEALTHY"]
            assert statuses.of("near") == ["UNKNOWN", "HEALTHY"]

    asyncio.run(main())


def test_two_monitors_that_disagree_change_nothing(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status stays, and an event lists the views; when one of the two is gone, the other decides."""
    monkeypatch.setattr(state, "DISPUTE_DELAY", 0.1)
    monkeypatch.setattr(state, "SETTLE_TIME", 0.1)

    async def main() -> None:
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            serving(hold) as port,
            monitors.monitor("m1", {"main": port}) as first,
        ):
            await statuses.until("main", "UNKNOWN", "HEALTHY")
            async with monitors.monitor("m2", {"main": free_port()}) as second:
                await statuses.until("main", "UNKNOWN", "HEALTHY", "HEALTHY")
                assert statuses.last("main")["metadata"]["views"] == {"m1": "HEALTHY", "m2": "UNHEALTHY"}
                assert dissent(first, "main") == dissent(second, "main") == 1
                await probed(second)
                await statuses.read()
                assert statuses.of("main") == ["UNKNOWN", "HEALTHY", "HEALTHY"]
                await monitors.kill("m1")
                await statuses.until("main", "HEALTHY", "UNHEALTHY")
                assert second.decisions.peers == 0

    asyncio.run(main())


def test_a_second_monitor_with_the_same_id_is_refused(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """It ends with an error, and the first one keeps its lease."""

    async def main() -> None:
        async with fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses), serving(hold) as port:
            async with monitors.monitor("m1", {"main": port}) as first:
                await statuses.until("main", "UNKNOWN", "HEALTHY")
                with pytest.raises(StreamsError, match="another monitor with the id 'm1' is running"):
                    async with monitors.monitor("m1", {"main": free_port()}, name="twin"):
                        pass
                assert first.decisions.holds_lease
            await statuses.read()
            assert statuses.of("main") == ["UNKNOWN", "HEALTHY"]

    asyncio.run(main())


def test_the_successor_of_a_killed_monitor_gets_its_lease(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease that is not renewed is no other monitor; the successor waits until it expires."""
    monkeypatch.setattr(election, "LEASE_TTL", 2)

    async def main() -> None:
        async with fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses), serving(hold) as port:
            async with monitors.monitor("m1", {"main": port}):
                await statuses.until("main", "UNKNOWN", "HEALTHY")
                await monitors.kill("m1")
            async with monitors.monitor("m1", {"main": free_port()}):
                await statuses.until("main", "HEALTHY", "UNHEALTHY")

    asyncio.run(main())


def test_votes_from_before_a_lost_lease_do_not_count_again(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """A monitor whose lease has expired votes again, because others may have decided since."""

    async def main() -> None:
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            serving(hold) as port,
            monitors.monitor("m1", {"main": port}) as first,
        ):
            await statuses.until("main", "UNKNOWN", "HEALTHY")
            assert first.decisions.election is not None
            electorate = first.decisions.election.electorate
            (before,) = electorate.votes("gateway.status.ctp.main").values()
            client, names = await first._publisher.connected(), Names(nats_prefix)
            lease = names.subject("watchdog.monitor.m1")
            await client.jetstream().purge_stream(names.stream("WATCHDOG"), subject=lease)
            await until(lambda: electorate.live()["m1"] != before.instance)
            await until(lambda: electorate.votes("gateway.status.ctp.main"))
            (after,) = electorate.votes("gateway.status.ctp.main").values()
            assert (after.view.status, after.instance) == (Status.HEALTHY, electorate.live()["m1"])

    asyncio.run(main())


def test_what_was_decided_alone_is_discarded_if_another_monitor_has_started(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A monitor that was cut off while it was alone does not overrule one that has started meanwhile."""
    monkeypatch.setattr(election, "LEASE_TTL", 2)

    async def main() -> None:
        port = int(nats_url.rpartition(":")[2])
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            cable(port) as wire,
            serving(hold) as reachable,
            contextlib.AsyncExitStack() as upstream,
        ):
            local = await upstream.enter_async_context(serving(hold))
            async with monitors.monitor("m1", {"main": local}, url=f"nats://127.0.0.1:{wire.port}") as first:
                await statuses.until("main", "UNKNOWN", "HEALTHY")
                wire.cut()
                await until(lambda: first.decisions.lacks_lease)
                await upstream.aclose()
                await until(lambda: first.status_publisher.pending)
                async with monitors.monitor("m2", {"main": reachable}) as second:
                    await until(lambda: view(second, "main") is Status.HEALTHY)
                    wire.repair()
                    await until(lambda: first.decisions.holds_lease and second.decisions.peers == 1)
                    await until(lambda: dissent(second, "main") == 1)
                    await probed(second)
                    assert not first.status_publisher.pending
                    await statuses.read()
                    assert statuses.of("main") == ["UNKNOWN", "HEALTHY"]

    asyncio.run(main())


def test_after_a_reload_to_probes_without_a_verdict_the_gateway_is_unknown(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vote from before is withdrawn, so that what the dead man's switch publishes is not corrected."""
    monkeypatch.setattr(watched_file, "STABLE_AFTER", 0.0)
    monkeypatch.setattr(dead_mans_switch, "MIN_TIMEOUT", 1.0)
    path = tmp_path / "m1.yaml"

    async def main() -> None:
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            serving(hold) as port,
            monitors.monitor("m1", {"main": port}) as monitor,
        ):
            await statuses.until("main", "HEALTHY")
            text = path.read_text()
            probe = f"{{kind: tcp, address: '127.0.0.1:{port}', label: tcp}}"
            assert probe in text
            path.write_text(text.replace(probe, "{kind: exec, command: [sh, -c, 'exit 3']}"))
            await statuses.until("main", "HEALTHY", "UNKNOWN")
            # Long enough for several decisions on every gateway.
            before = monitor.housekeeping_at
            await until(lambda: monitor.housekeeping_at > before + 1.2)
            await statuses.read()
            assert statuses.of("main")[-2:] == ["HEALTHY", "UNKNOWN"]
            assert statuses.last("main")["metadata"]["reason"] == "monitor_silent"

    asyncio.run(main())


def test_a_file_that_is_incomplete_at_the_start_removes_no_gateway(
    nats_url: str, nats_prefix: str, tmp_path: Path
) -> None:
    """Half of the gateways of the run before are removed only if that is confirmed, as on a reload."""
    gone = ("b", "c", "d")

    async def main() -> None:
        async with fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses), serving(hold) as port:
            everything = dict.fromkeys(("a", *gone), port)
            async with monitors.monitor("m1", everything):
                for gateway in everything:
                    await statuses.until(gateway, "UNKNOWN", "HEALTHY")
            async with monitors.monitor("m1", {"a": port}) as incomplete:
                await probed(incomplete, 3)
                assert not incomplete.file.accepted
                assert not incomplete.decisions.removed
            async with monitors.monitor("m1", {"a": port}) as monitor:
                # Another program says what has become of one of them since.
                event = GatewayStatusChange(
                    gateway_id="b",
                    gateway_type="ctp",
                    previous_status=Status.HEALTHY,
                    current_status=Status.DEGRADED,
                    metadata={"monitor": "m1"},
                )
                subject = Names(nats_prefix).subject(event.subject)
                await statuses._client.publish(subject, event.encode())
                await until(
                    lambda: monitor._peer_updates.unconfirmed[event.subject].status is Status.DEGRADED
                )
                await statuses.read()
                assert [statuses.of(gateway)[-1] for gateway in gone] == ["DEGRADED", "HEALTHY", "HEALTHY"]
                monitor.request_reload()
                for gateway in gone:
                    await statuses.until(gateway, "REMOVED")
                assert statuses.last("b")["previous_status"] == "DEGRADED"
                assert monitor.file.accepted
            assert statuses.of("a") == ["UNKNOWN", "HEALTHY"]

    asyncio.run(main())


def test_without_watchdog_a_monitor_decides_alone(
    nats_url: str, nats_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a NATS server without message schedules there are no votes, and statuses of peers are adopted."""
    monkeypatch.setattr(dead_mans_switch, "MIN_SERVER_VERSION", (99, 0))

    async def main() -> None:
        port = free_port()
        async with (
            fleet(nats_url, nats_prefix, tmp_path) as (monitors, statuses),
            monitors.monitor("m1", {"main": port}) as first,
            monitors.monitor("m2", {"main": port}) as second,
        ):
            await statuses.until("main", "UNKNOWN", "UNHEALTHY")
            async with serving(hold, port):
                await statuses.until("main", "UNHEALTHY", "HEALTHY")
            await statuses.until("main", "HEALTHY", "UNHEALTHY")
            await probed(first)
            await probed(second)
            assert (first.decisions.peers, second.decisions.peers) == (0, 0)
            await statuses.read()
            assert statuses.of("main") == ["UNKNOWN", "UNHEALTHY", "HEALTHY", "UNHEALTHY"]

    asyncio.run(main())


@pytest.mark.parametrize("version", versions())
def test_leases_votes_and_limits_work_with_each_version_of_nats(version: str, tmp_path: Path) -> None:
    """Each version with a WATCHDOG stream expires single messages, and expects sequences."""

    async def main() -> None:
        with NatsServer(tmp_path / "nats", binary=versions()[version]) as server:
            async with (
                fleet(server.url, "", tmp_path) as (monitors, statuses),
                serving(hold) as port,
                monitors.monitor("m1", {"main": port}) as first,
                monitors.monitor("m2", {"main": port}) as second,
            ):
                await statuses.until("main", "UNKNOWN", "HEALTHY")
                await until(lambda: first.decisions.peers == second.decisions.peers == 1)
                limits = Limits(statuses._client, Names(), pytest.fail)
                assert [await limits.take("logon", ("a", "b"), 2) for _ in range(3)] == [True, True, False]

    asyncio.run(main())
