"""Several monitors on one file, none at all, and what an operator does to one while it runs."""

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

TRANSITIONS = 200 if os.environ.get("TICKERTAPE_CHAOS") == "full" else 40

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
    """``tickertape monitor`` as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def said(self) -> str:
        return self._log.read_text()

    async def says(self, text: str, times: int = 1) -> None:
        async with asyncio.timeout(PATIENCE):
            while self.said.count(text) < times:
                assert self.process.returncode is None, self.said
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
    url: str, config: Path, id: str, *options: str, switched: bool = False
) -> AsyncIterator[Program]:
    """Start a monitor, and wait until it watches.

    Args:
        url: of NATS.
        config: its file.
        id: its name.
        options: more of the command line.
        switched: its switch fires after a second of silence. Else it waits for minutes, since on a busy
            machine a monitor may well be silent for a second.
    """
    log = config.with_name(f"{id}-{time.monotonic_ns()}.log")
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(MONITOR if switched else PATIENT), "monitor", "--config", str(config), "--id", id,
            "--nats-url", url, *options, stderr=output, cwd=ROOT,
        )  # fmt: skip
    program = Program(process, log)
    try:
        await program.says("monitoring")
        yield program
        await program.stop()
    finally:
        if process.returncode is None:
            await program.kill()


def written(folder: Path, port: int, more: str = "") -> Path:
    path = folder / "gateways.yaml"
    path.write_text(FILE.format(port=port, more=more))
    return path


def monitors(statuses: Statuses) -> set[str]:
    return {str(event["metadata"].get("monitor")) for event in statuses.events}


async def switch(statuses: Statuses) -> Msg:
    """The scheduled message of the gateway's switch; status 404 in its headers where there is none."""
    subject = "$JS.API.DIRECT.GET.WATCHDOG.watchdog.armed.ctp.main"
    return await statuses._client.request(subject, timeout=PATIENCE)


async def armed(statuses: Statuses) -> None:
    """Wait until the gateway's switch would fire."""
    async with asyncio.timeout(PATIENCE):
        while "Nats-Schedule" not in ((await switch(statuses)).headers or {}):
            await asyncio.sleep(0.02)


async def disarmed(statuses: Statuses) -> None:
    """Wait until there is no switch of the gateway any more."""
    async with asyncio.timeout(PATIENCE):
        while ((await switch(statuses)).headers or {}).get("Status") != "404":
            await asyncio.sleep(0.02)


def test_two_monitors_tell_each_transition_once(nats_server: NatsServer, tmp_path: Path) -> None:
    """Whoever is first; the other adopts it, and what follows continues what was."""

    async def main() -> None:
        port = free_port()
        config = written(tmp_path, port, ", flapping: {window: 200, enter: 1, leave: 0.5}")
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
            told = statuses.of("main")
            assert told == ["UNKNOWN"] + ["UNHEALTHY", "HEALTHY"] * (TRANSITIONS // 2) + ["UNHEALTHY"]
            chain = [(event["previous_status"], event["current_status"]) for event in statuses.events]
            assert all(before[1] == after[0] for before, after in itertools.pairwise(chain))
            assert monitors(statuses) == {"m1", "m2"}

    asyncio.run(main())


def test_one_of_two_is_killed_and_the_other_goes_on(nats_server: NatsServer, tmp_path: Path) -> None:
    """In the middle of it all; no transition is missed or told twice."""

    async def main() -> None:
        port = free_port()
        config = written(tmp_path, port)
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


def test_when_all_are_dead_nats_tells_and_the_first_back_restores(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    """UNKNOWN, for the reason that it has; then the truth at once."""

    async def main() -> None:
        async with listening(nats_server.url) as statuses, serving(hold) as port:
            config = written(tmp_path, port)
            for id in ("m1", "m2"):
                async with started(nats_server.url, config, id, switched=True) as program:
                    await statuses.until("main", "HEALTHY")
                    await armed(statuses)
                    await program.kill()
                    await statuses.until("main", "HEALTHY", "UNKNOWN")
                    assert statuses.last("main")["metadata"]["reason"] == "monitor_silent"
            async with started(nats_server.url, config, "m3"):
                await statuses.until("main", "UNKNOWN", "HEALTHY")
                assert statuses.last("main")["metadata"]["reason"] == "monitor_recovered"

    asyncio.run(main())


def test_nats_away_for_longer_than_the_switch(nats_server: NatsServer, tmp_path: Path) -> None:
    """It fires when the server is back; the monitor was never away, and says at once what is true."""

    async def main() -> None:
        async with listening(nats_server.url) as statuses, serving(hold) as port:
            config = written(tmp_path, port)
            async with started(nats_server.url, config, "m1", switched=True):
                await statuses.until("main", "HEALTHY")
                await armed(statuses)
                due = parse_time(orjson.loads((await switch(statuses)).data)["timestamp"]).timestamp()
                nats_server.kill()
                # A renewal that was under way may have put it off by one more second.
                await asyncio.sleep(max(0.0, due + 1.5 - time.time()))
                nats_server.start()
                await statuses.until("main", "UNKNOWN", "HEALTHY")

    asyncio.run(main())


async def own_status(url: str, monitor: str, expected: str) -> None:
    """Wait until a monitor's own health event has a status."""
    async with asyncio.timeout(PATIENCE), jetstream(url) as js:
        while True:
            message = await js.get_last_msg("LATEST", f"system.health.monitor.{monitor}")
            if orjson.loads(message.data or b"{}").get("status") == expected:
                return
            await asyncio.sleep(0.05)


def test_the_file_is_read_again_when_it_changes(nats_server: NatsServer, tmp_path: Path) -> None:
    """A bad one is refused and the old one stays; a good one keeps what it can, adds and removes."""

    async def main() -> None:
        async with listening(nats_server.url) as statuses, serving(hold) as port:
            config = written(tmp_path, port)
            good = config.read_text()
            async with started(nats_server.url, config, "m1", "--health-interval", "0.1") as program:
                await statuses.until("main", "HEALTHY")
                config.write_text(good.replace("type: ctp", "type: ctp, tpye: ctp"))
                await program.says("the changed file is rejected; the previous one stays in effect")
                await own_status(nats_server.url, "m1", "DEGRADED")
                assert "gateways.yaml:4: gateways[0].tpye: is not a setting" in program.said
                other = (
                    f'  - {{id: other, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]}}\n'
                )
                config.write_text(good + other)
                await statuses.until("other", "UNKNOWN", "HEALTHY")
                assert statuses.of("main") == ["UNKNOWN", "HEALTHY"]
                await own_status(nats_server.url, "m1", "HEALTHY")
                config.write_text(good.split("  - ")[0] + other)
                await statuses.until("main", "REMOVED")
                program.process.send_signal(signal.SIGHUP)
                await program.says("file reloaded", times=3)
            await disarmed(statuses)

    asyncio.run(main())


def test_a_gateway_is_silenced_and_recovered(nats_server: NatsServer, tmp_path: Path) -> None:
    """The command brings it back; while it is silenced nobody tries, and all that is told says so."""

    async def main() -> None:
        port = free_port()
        flag = tmp_path / "tried"
        more = f", recovery: {{command: [touch, '{flag}'], backoff: 100ms, attempts: 2, per_hour: 50}}"
        config = written(tmp_path, port, more)
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1") as program,
        ):
            await program.says("recovery failed 2")
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
            await program.says("recovery attempt", times=3)
            # It did not try while it was silenced: the third attempt is the first one of a new recovery.
            attempts = [text.split()[-1] for text in program.said.splitlines() if "recovery attempt" in text]
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
    """A day on which the exchange never opens: OFF_SESSION, though nobody listens there."""

    async def main() -> None:
        port = free_port()
        config = written(tmp_path, free_port(), ", session: never")
        calendar = "exchanges:\n  never: {zone: UTC, days: [mon], spans: ['00:00-00:01'], holidays: ["
        days = ", ".join(f"'{year}-01-01..{year}-12-31'" for year in range(2020, 2060))
        other = f'  - {{id: other, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{port}"}}]}}\n'
        config.write_text(calendar + days + "]}\n" + config.read_text() + other)
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1"),
        ):
            await statuses.until("main", "UNKNOWN", "OFF_SESSION")
            # Meanwhile another gateway is probed again and again: there was time for this one too.
            for _ in range(2):
                async with serving(hold, port):
                    await statuses.until("other", "HEALTHY")
                await statuses.until("other", "UNHEALTHY")
            assert statuses.of("main") == ["UNKNOWN", "OFF_SESSION"]

    asyncio.run(main())


def test_without_connectivity_it_judges_nobody(nats_server: NatsServer, tmp_path: Path) -> None:
    """And its switch runs out, so that nobody believes what was."""

    async def main() -> None:
        port, world = free_port(), free_port()
        config = written(tmp_path, port)
        probe = f"{{kind: tcp, address: '127.0.0.1:{world}'}}"
        config.write_text(f"connectivity: {{interval: 50ms, probes: [{probe}]}}\n" + config.read_text())
        online = contextlib.AsyncExitStack()
        await online.enter_async_context(serving(hold, world))
        async with (
            listening(nats_server.url) as statuses,
            started(nats_server.url, config, "m1", switched=True) as program,
        ):
            async with serving(hold, port):
                await statuses.until("main", "HEALTHY")
                await armed(statuses)
                await online.aclose()
                await program.says("monitor is offline; probe results are ignored")
            await statuses.until("main", "HEALTHY", "UNKNOWN")
            assert statuses.last("main")["metadata"]["reason"] == "monitor_silent"
            async with serving(hold, world):
                await statuses.until("main", "UNKNOWN", "UNHEALTHY")

    asyncio.run(main())


def test_its_metrics(nats_server: NatsServer, tmp_path: Path) -> None:
    """The names of blackbox_exporter for probes, our own for the rest."""

    async def main() -> None:
        port = free_port()
        async with listening(nats_server.url) as statuses, serving(hold) as gateway:
            config = written(tmp_path, gateway)
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


@pytest.mark.parametrize("arguments", [["nobody", "--for", "1h"], []])
def test_a_silence_for_nobody(nats_server: NatsServer, arguments: list[str]) -> None:
    """It is told what is wrong, and the exit code says so."""

    async def main() -> tuple[Any, bytes]:
        async with listening(nats_server.url):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "tickertape", "monitor", "silence", *arguments,
                "--nats-url", nats_server.url, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
            )  # fmt: skip
            _, said = await process.communicate()
            return process.returncode, said

    code, said = asyncio.run(main())
    assert (
        (code, b"unknown" in said) == (1, True)
        if arguments
        else (code, b"which gateway" in said) == (2, True)
    )
