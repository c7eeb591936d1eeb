"""Several monitors with the same file, failed monitors, and operator actions on a running one."""

import asyncio
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from nats.aio.msg import Msg
from tickertape.contracts.events import parse_time

from tests.integration.monitor.test_monitor import Statuses, hold, listening, serving
from tests.support.clients.feed_client import jetstream
from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer, free_port

TRANSITIONS = 200 if os.environ.get("CHAOS") == "full" else 40

FILE = """
defaults: {{interval: 50ms, timeout: 30s, unhealthy_after: 1, healthy_after: 1}}
gateways:
  - {{id: main, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]{more}}}
"""


MONITOR = (sys.executable, "-m", "tickertape")
PATIENT_CODE = """
from tickertape.cli.main import main
from tickertape.producers.monitor.coordination import dead_mans_switch

dead_mans_switch.MIN_TIMEOUT = 600.0
main()
"""
PATIENT = (sys.executable, "-c", PATIENT_CODE)


class Program:
    """``tickertape monitor`` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def output(self) -> str:
        return self._log.read_text()

    async def wait_for_output(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.output.count(text) < times:
                assert self.process.returncode is None, self.output
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(PATIENCE):
                assert await self.process.wait() == 0


@contextlib.asynccontextmanager
async def started(
    url: str, config: Path, id: str, *options: str, short_switch: bool = False
) -> AsyncIterator[Program]:
    """Start a monitor and wait until it monitors.

    Args:
        url: URL of NATS.
        config: monitor file.
        id: ID of the monitor.
        options: further options.
        short_switch: whether the dead man's switch fires after a second of silence. Otherwise it waits for
            minutes, because on a busy machine a monitor may well be silent for a second.
    """
    log = config.with_name(f"{id}-{time.monotonic_ns()}.log")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(MONITOR if short_switch else PATIENT), "monitor", "--gateways", str(config), "--id", id,
            "--nats-url", url, *options, stderr=output, cwd=ROOT,
        )  # fmt: skip
    program = Program(process, log)
    try:
        await program.wait_for_output("monitoring")
        yield program
        await program.stop()
    finally:
        if process.returncode is None:
            await program.kill()


def write_config(folder: Path, port: int, more: str = "") -> Path:
    path = folder / "gateways.yaml"
    path.write_text(FILE.format(port=port, more=more))
    os.utime(path, (0, 0))  # a monitor waits until a new file is complete
    return path


def reporting_monitors(statuses: Statuses) -> set[str]:
    return {str(event["metadata"].get("monitor")) for event in statuses.events}


async def switch_message(statuses: Statuses) -> Msg:
    """Request the scheduled message of the gateway's switch; the reply has status 404 if there is none."""
    subject = "$JS.API.DIRECT.GET.WATCHDOG.watchdog.armed.ctp.main"
    return await statuses._client.request(subject, timeout=PATIENCE)


async def wait_until_armed(statuses: Statuses) -> None:
    """Wait until the gateway's switch is armed."""
    async with asyncio.timeout(PATIENCE):
        while "Nats-Schedule" not in ((await switch_message(statuses)).headers or {}):
            await asyncio.sleep(0.02)


async def wait_until_disarmed(statuses: Statuses) -> None:
    """Wait until the gateway has no armed switch."""
    async with asyncio.timeout(PATIENCE):
        while ((await switch_message(statuses)).headers or {}).get("Status") != "404":
            await asyncio.sleep(0.02)


def test_two_monitors_publish_each_transition_once(nats_server: NatsServer, tmp_path: Path) -> None:
    """Two monitors publish each transition once: one is first, the other adopts its status."""

    async def main() -> None:
        port = free_port()
        config = write_config(tmp_path, port, ", flapping: {window: 200, enter: 1, leave: 0.5}")
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1"),
            started(nats_server.url, config, "m2"),
        ):
            await statuses.until("main", "UNHEALTHY")
            for _ in range(TRANSITIONS // 2):
                async with serving(hold, port):
                    await statuses.until("main", "HEALTHY")
                await statuses.until("main", "UNHEALTHY")
            published = statuses.of("main")
            assert published == ["UNKNOWN"] + ["UNHEALTHY", "HEALTHY"] * (TRANSITIONS // 2) + ["UNHEALTHY"]
            chain = [(event["previous_status"], event["current_status"]) for event in statuses.events]
            assert all(before[1] == after[0] for before, after in itertools.pairwise(chain))
            assert reporting_monitors(statuses) == {"m1", "m2"}

    asyncio.run(main())


def test_one_of_two_monitors_is_killed(nats_server: NatsServer, tmp_path: Path) -> None:
    """When one of two monitors is killed, no transition is missed or published twice."""

    async def main() -> None:
        port = free_port()
        config = write_config(tmp_path, port)
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m2"),
        ):
            for round_ in range(3):
                await statuses.until("main", "UNHEALTHY")
                async with started(nats_server.url, config, f"victim{round_}") as victim:
                    async with serving(hold, port):
                        await victim.kill()
                        await statuses.until("main", "HEALTHY")
                    await statuses.until("main", "UNHEALTHY")
                    victim.process._transport.close()  # type: ignore[attr-defined]
            assert statuses.of("main") == ["UNKNOWN"] + ["UNHEALTHY", "HEALTHY"] * 3 + ["UNHEALTHY"]

    asyncio.run(main())


def test_when_all_monitors_are_dead_nats_publishes_unknown(nats_server: NatsServer, tmp_path: Path) -> None:
    """NATS publishes UNKNOWN when all monitors are silent; the first to return corrects it."""

    async def main() -> None:
        async with listening(nats_server.url) as statuses, serving(hold) as port:
            config = write_config(tmp_path, port)
            for id in ("m1", "m2"):
                async with started(nats_server.url, config, id, short_switch=True) as program:
                    await statuses.until("main", "HEALTHY")
                    await wait_until_armed(statuses)
                    await program.kill()
                    await statuses.until("main", "HEALTHY", "UNKNOWN")
                    assert statuses.last("main")["metadata"]["reason"] == "monitor_silent"
            async with started(nats_server.url, config, "m3"):
                await statuses.until("main", "UNKNOWN", "HEALTHY")
                assert statuses.last("main")["metadata"]["reason"] == "monitor_recovered"

    asyncio.run(main())


def test_nats_is_down_for_longer_than_the_switch(nats_server: NatsServer, tmp_path: Path) -> None:
    """If NATS is down for longer than the switch, it fires on return, and the monitor corrects the status."""

    async def main() -> None:
        async with listening(nats_server.url) as statuses, serving(hold) as port:
            config = write_config(tmp_path, port)
            async with started(nats_server.url, config, "m1", short_switch=True):
                await statuses.until("main", "HEALTHY")
                await wait_until_armed(statuses)
                due = parse_time(orjson.loads((await switch_message(statuses)).data)["timestamp"]).timestamp()
                nats_server.kill()
                # A renewal in flight may have postponed the switch by a second.
                await asyncio.sleep(max(0.0, due + 1.5 - time.time()))
                nats_server.start()
                await statuses.until("main", "UNKNOWN", "HEALTHY")

    asyncio.run(main())


async def wait_for_health(url: str, monitor: str, expected: str) -> None:
    """Wait until a monitor's health event has a status."""
    async with asyncio.timeout(PATIENCE), jetstream(url) as js:
        while True:
            message = await js.get_last_msg("HEALTH", f"system.health.monitor.{monitor}")
            if orjson.loads(message.data or b"{}").get("status") == expected:
                return
            await asyncio.sleep(0.05)


def test_a_changed_file_is_reloaded(nats_server: NatsServer, tmp_path: Path) -> None:
    """A changed file is reloaded: an invalid one is rejected, a valid one adds and removes gateways."""

    async def main() -> None:
        async with listening(nats_server.url) as statuses, serving(hold) as port:
            config = write_config(tmp_path, port)
            good = config.read_text()
            async with started(nats_server.url, config, "m1", "--health-interval", "0.1") as program:
                await statuses.until("main", "HEALTHY")
                config.write_text(good.replace("type: ctp", "type: ctp, tpye: ctp"))
                await program.wait_for_output(
                    "the changed file is rejected; the previous one stays in effect"
                )
                await wait_for_health(nats_server.url, "m1", "DEGRADED")
                assert "gateways.yaml:4: gateways[0].tpye: is not a setting" in program.output
                other = (
                    f'  - {{id: other, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]}}\n'
                )
                config.write_text(good + other)
                await statuses.until("other", "UNKNOWN", "HEALTHY")
                assert statuses.of("main") == ["UNKNOWN", "HEALTHY"]
                await wait_for_health(nats_server.url, "m1", "HEALTHY")
                config.write_text(good.split("  - ")[0] + other)
                await statuses.until("main", "REMOVED")
                program.process.send_signal(signal.SIGHUP)
                await program.wait_for_output("file reloaded", times=3)
            await wait_until_disarmed(statuses)

    asyncio.run(main())


def test_a_gateway_is_silenced_and_recovered(nats_server: NatsServer, tmp_path: Path) -> None:
    """The recovery command runs for an unhealthy gateway, but not while it is silenced, and events say so."""

    async def main() -> None:
        port = free_port()
        flag = tmp_path / "tried"
        more = f", recovery: {{command: [touch, '{flag}'], backoff: 100ms, attempts: 2, per_hour: 50}}"
        config = write_config(tmp_path, port, more)
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1") as program,
        ):
            await program.wait_for_output("recovery failed 2")
            assert flag.exists()
            async with serving(hold, port):
                await statuses.until("main", "HEALTHY")
                done = await silence(nats_server.url, "main", "--for", "1h", "--reason", "exchange test")
                assert "ctp/main is silenced until" in done
                await statuses.until("main", "HEALTHY", "HEALTHY")
            await statuses.until("main", "HEALTHY", "UNHEALTHY")
            assert statuses.last("main")["metadata"]["silenced"]["reason"] == "exchange test"
            await silence(nats_server.url, "main", "--end")
            await statuses.until("main", "UNHEALTHY", "UNHEALTHY")
            assert "silenced" not in statuses.last("main")["metadata"]
            await program.wait_for_output("recovery attempt", times=3)
            # Nothing was attempted while it was silenced: the third attempt is the first of a new recovery.
            attempts = [
                text.split()[-1] for text in program.output.splitlines() if "recovery attempt" in text
            ]
            assert attempts[:3] == ["1", "2", "1"]

    asyncio.run(main())


async def silence(url: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tickertape", "monitor", "silence", *arguments, "--nats-url", url,
        stdout=asyncio.subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


def test_outside_of_its_session_it_is_not_probed(nats_server: NatsServer, tmp_path: Path) -> None:
    """Outside of its session a gateway is OFF_SESSION and not probed, even if nothing listens on its port."""

    async def main() -> None:
        port = free_port()
        config = write_config(tmp_path, free_port(), ", session: never")
        calendar = "exchanges:\n  never: {zone: UTC, days: [mon], spans: ['00:00-00:01'], holidays: ["
        days = ", ".join(f"'{year}-01-01..{year}-12-31'" for year in range(2020, 2060))
        other = f'  - {{id: other, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]}}\n'
        config.write_text(calendar + days + "]}\n" + config.read_text() + other)
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1"),
        ):
            await statuses.until("main", "UNKNOWN", "OFF_SESSION")
            # Another gateway is probed repeatedly meanwhile, so there was time to probe this one too.
            for _ in range(2):
                async with serving(hold, port):
                    await statuses.until("other", "HEALTHY")
                await statuses.until("other", "UNHEALTHY")
            assert statuses.of("main") == ["UNKNOWN", "OFF_SESSION"]

    asyncio.run(main())


def test_an_offline_monitor_ignores_its_probes(nats_server: NatsServer, tmp_path: Path) -> None:
    """An offline monitor ignores its probe results and lets the switch fire, so no stale status remains."""

    async def main() -> None:
        port, internet = free_port(), free_port()
        config = write_config(tmp_path, port)
        probe = f"{{kind: tcp, address: '127.0.0.1:{internet}'}}"
        config.write_text(f"connectivity: {{interval: 50ms, probes: [{probe}]}}\n" + config.read_text())
        online = contextlib.AsyncExitStack()
        await online.enter_async_context(serving(hold, internet))
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1", short_switch=True) as program,
        ):
            async with serving(hold, port):
                await statuses.until("main", "HEALTHY")
                await wait_until_armed(statuses)
                await online.aclose()
                await program.wait_for_output("monitor is offline; probe results are ignored")
            await statuses.until("main", "HEALTHY", "UNKNOWN")
            assert statuses.last("main")["metadata"]["reason"] == "monitor_silent"
            async with serving(hold, internet):
                await statuses.until("main", "UNKNOWN", "UNHEALTHY")

    asyncio.run(main())


def test_metrics(nats_server: NatsServer, tmp_path: Path) -> None:
    """Probe metrics have the names of blackbox_exporter; all others start with ``tickertape_``."""

    async def main() -> None:
        port = free_port()
        async with listening(nats_server.url) as statuses, serving(hold) as gateway:
            config = write_config(tmp_path, gateway)
            async with started(nats_server.url, config, "m1", "--metrics-port", str(port)):
                await statuses.until("main", "HEALTHY")
                async with httpx.AsyncClient() as client:
                    text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        labels = f'{{gateway="main",probe="tcp 127.0.0.1:{gateway}",type="ctp"}}'
        assert f"probe_success{labels} 1.0" in text
        assert f"probe_duration_seconds{labels} " in text
        assert 'tickertape_gateway_status{gateway="main",status="HEALTHY",type="ctp"} 1.0' in text
        assert "tickertape_monitor_transitions_total 2.0" in text

    asyncio.run(main())


@pytest.mark.parametrize("arguments", [["absent", "--for", "1h"], []])
def test_a_silence_without_a_known_gateway(nats_server: NatsServer, arguments: list[str]) -> None:
    """A silence for an unknown gateway, or for none, prints an error and ends with a non-zero exit code."""

    async def main() -> tuple[Any, bytes]:
        async with listening(nats_server.url):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tickertape", "monitor", "silence", *arguments,
                "--nats-url", nats_server.url, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
            )  # fmt: skip
            _, output = await process.communicate()
            return process.returncode, output

    code, output = asyncio.run(main())
    assert (
        (code, b"unknown" in output) == (1, True)
        if arguments
        else (code, b"silence needs a gateway" in output) == (2, True)
    )
