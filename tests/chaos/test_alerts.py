"""Alerts with real causes in real programs, from the cause to the webhook of Alertmanager, and to their end.

The alerts in ``SERVED`` need many clients, many events or a full disk; ``tests/e2e/test_alerts.py`` serves
their metrics instead.
"""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from tickertape.contracts.events import Status, SystemHealth
from tickertape.contracts.messages import Gap
from tickertape.relay.core.snapshot import FAMILIES

from tests.e2e.test_alerts import CONDITIONS
from tests.support.clients import forge
from tests.support.clients.feed_client import follow, jetstream, line, publish, run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import Relay, command, environment, eventually
from tests.support.servers.alertmanager_server import Notifications, alertmanager, webhook
from tests.support.servers.nats_server import NatsServer, free_port
from tests.support.servers.prometheus_server import Prometheus

SERVED: Final = {
    *("TickertapeAuditRecordsLost", "TickertapeDescriptors", "TickertapeIngestLag"),
    *("TickertapeNatsStoreFailed", "TickertapeHistoryNotLoaded", "TickertapeMonitorConfigRejected"),
    *("TickertapeMonitorGatewayFailures", "TickertapeGatewayDisputed"),
}
FULL: Final = os.environ.get("CHAOS") == "full"
KEY: Final = forge.public_pem("HS256").decode()


class Producer:
    """A monitor or a shipper as a process that a test stops and starts."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._line = command(*arguments)
        self._log = folder / f"{arguments[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._line, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self) -> None:
        """Kill it; idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def gateway(port: int) -> Iterator[None]:
    """Accept connections, as a gateway that is well."""
    with socket.create_server(("127.0.0.1", port), backlog=4096):
        yield


class Stage:
    """All programs with their metrics in Prometheus, and its alerts at a webhook."""

    def __init__(self, folder: Path, stack: ExitStack, gateway_port: int) -> None:
        self.revoked, self.logs = folder / "revoked", folder / "app.log"
        self.revoked.write_text("# none\n")
        self.logs.write_text("2026-01-01 12:00:00 ERROR margin call\n")
        self.gateway_port = gateway_port
        config = folder / "gateways.yaml"
        config.write_text(
            "defaults: {interval: 100ms, timeout: 1s, unhealthy_after: 1, healthy_after: 1}\ngateways:\n"
            f'  - {{id: a, type: ctp, probes: [{{kind: tcp, address: "127.0.0.1:{self.gateway_port}"}}]}}\n'
        )
        self.nats = stack.enter_context(NatsServer(folder / "nats"))
        tokens = ("--auth", "jwt", "--jwt-algorithm", "HS256", "--jwt-revoked-file", str(self.revoked))
        self.guarded = stack.enter_context(Relay(self.nats.url, *tokens, TICKERTAPE_JWT_KEY=KEY))
        self.open = Relay(self.nats.url, "--workers", "2")
        self.small = Relay(self.nats.url)
        for relay in (self.open, self.small):
            stack.enter_context(relay)
        ports = [free_port(), free_port()]
        nats = ("--nats-url", self.nats.url, "--metrics-port")
        self.monitor = Producer(folder, "monitor", "--gateways", str(config), *nats, str(ports[0]))
        state = ("--state-dir", str(folder / "state"))
        self.shipper = Producer(folder, "ship", str(self.logs), *state, *nats, str(ports[1]))
        stack.callback(self.monitor.kill)
        stack.callback(self.shipper.kill)
        self.notified: Notifications = stack.enter_context(webhook())
        relays = (self.guarded, self.open, self.small)
        self.targets = {
            "relays": [relay.ops_url.partition("://")[2] for relay in relays],
            "monitors": [f"127.0.0.1:{ports[0]}"],
            "shippers": [f"127.0.0.1:{ports[1]}"],
            "alertmanagers": [stack.enter_context(alertmanager(folder, self.notified.port))],
        }
        for kind in ("monitors", "shippers"):
            eventually(lambda kind=kind: serves(*self.targets[kind]), f"the {kind} serve metrics")  # type: ignore[misc]
        self.prometheus = stack.enter_context(Prometheus(folder, self.targets, quick=True))

    def until(self, wanted: set[str], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Wait until the webhook has got some alerts and the end of all others."""

        def met() -> bool:
            meanwhile()
            return self.notified.unresolved() == {f"Tickertape{name}" for name in wanted}

        try:
            eventually(met, f"alerts are {wanted}", 2 * PATIENCE)
        except TimeoutError:
            pytest.fail(f"{wanted} expected; {self.notified.unresolved()} are active")

    def knock(self) -> None:
        """Send a token with a wrong signature."""
        request = Request(f"{self.guarded.url}/events", headers={"Authorization": "Bearer a.b.c"})
        with pytest.raises(HTTPError) as rejected:
            urlopen(request, timeout=PATIENCE)
        rejected.value.close()


def serves(address: str) -> bool:
    """Return whether a program serves its metrics."""
    try:
        with urlopen(f"http://{address}/metrics", timeout=PATIENCE):
            return True
    except OSError:
        return False


async def lose_events(stage: Stage) -> None:
    """Delete events that a client of a relay that starts later asks for."""
    async with jetstream(stage.nats.url) as js:
        first = await publish(js, line("one"))
        for _ in range(4):
            await publish(js, line("more"))
        for number in (first + 1, first + 2):
            await js.delete_msg("EVENTS", number)
        await asyncio.to_thread(stage.small.end, signal.SIGTERM)
        await asyncio.to_thread(stage.small.start)
        await asyncio.to_thread(eventually, lambda: scraped(stage), "the relay's counters have been scraped")
        async with follow(stage.small.ws_url, mode="complete", since="1h") as feed:
            await feed.one(Gap)


def scraped(stage: Stage) -> bool:
    """Return whether the restarted relay has been scraped a few times."""
    address = stage.small.ops_url.partition("://")[2]
    series = f'tickertape_gaps_total{{instance="{address}",reason="retention"}}'
    return bool(stage.prometheus.query(f"count_over_time({series}[3s]) >= 2 and {series} == 0"))


async def flood(stage: Stage) -> None:
    """Publish the states of more components than a relay can hold."""
    async with jetstream(stage.nats.url) as js:
        for number in range(FAMILIES["system.health"].max_states + 100):
            event = SystemHealth(component=f"x{number}", status=Status.HEALTHY)
            await js._nc.publish(event.subject, event.encode())
        await js._nc.flush()


@pytest.mark.skipif(not FULL, reason="takes minutes; 'make chaos' runs it")
def test_real_causes_raise_and_end_alerts(tmp_path: Path) -> None:
    """A healthy installation is quiet; each cause raises its alert, no other, and ends with it."""
    assert {*CONDITIONS} > SERVED
    with ExitStack() as stack:
        with gateway_and_stage(tmp_path, stack) as stage:
            everywhere = "count(count_over_time(up[1h]) > 10) == 5"
            eventually(lambda: bool(stage.prometheus.query(everywhere)), "all are scraped for a while")
            stage.until(set())

            run(lose_events(stage))
            stage.until({"RetentionGaps"})
            stage.until(set())

            stage.revoked.write_text("what is this line\n")
            stage.until({"AuthSourceInvalid", "AuthFailures"}, stage.knock)
            stage.revoked.write_text("# none\n")
            stage.until(set())

            run(flood(stage))
            stage.until({"StatesMissing"})
        # The gateway has closed its port.
        stage.until({"StatesMissing", "GatewayUnhealthy"})
        outage(stage)


def outage(stage: Stage) -> None:
    """Stop NATS, then all programs, and start everything again without the flood."""
    stage.nats.stop()
    with stage.logs.open("a") as file:
        file.write("2026-01-01 12:00:01 ERROR margin call\n")
    stage.until({"StatesMissing", "GatewayUnhealthy", "UpstreamLost", "ShipperLag"})
    relays = (stage.guarded, stage.open, stage.small)
    for program in (*relays, stage.monitor, stage.shipper):
        program.kill()
    stage.until({"RelayDown", "MonitorSilent", "ShipperDown"})
    stage.nats.start()

    async def purge() -> None:
        async with jetstream(stage.nats.url) as js:
            await js.purge_stream("HEALTH")
            await js.purge_stream("EVENTS")

    run(purge())
    for relay in relays:
        relay.start()
    with gateway(stage.gateway_port):
        stage.monitor.start()
        stage.shipper.start()
        stage.until(set())


@contextmanager
def gateway_and_stage(folder: Path, stack: ExitStack) -> Iterator[Stage]:
    """Set the stage with a gateway that is well within the context."""
    port = free_port()
    with gateway(port):
        yield Stage(folder, stack, port)
