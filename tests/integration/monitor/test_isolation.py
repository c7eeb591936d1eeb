"""An exception in anything that runs for one gateway stays with that gateway."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from prometheus_client import CollectorRegistry, generate_latest
from tickertape.contracts.events import GatewayStatusChange, Status
from tickertape.producers.monitor import recovery_action
from tickertape.producers.monitor.config import watched_file
from tickertape.producers.monitor.config.loader import load
from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.coordination import silences, vote_messages
from tickertape.producers.monitor.gateway.state import GatewayState
from tickertape.producers.monitor.metrics import MonitorCollector
from tickertape.producers.monitor.monitor import Monitor
from tickertape.producers.monitor.monitored_gateway import MonitoredGateway
from tickertape.producers.monitor.probes.tcp import TcpProbe
from tickertape.producers.sdk.publisher import Publisher

from tests.integration.monitor.test_monitor import hold, listening, serving
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import free_port
from tickertape.names import Names

PLACES: dict[str, tuple[str, str]] = {
    # gateway: activity that fails, and the gateway's probe or settings
    "probe": ("probe", ""),
    "result": ("probe", ""),
    "session": ("session", ""),
    "expiry": ("silence", ""),
    "silence": ("silence", ""),
    "decision": ("recovery", "recovery: {command: ['true']}, "),
    "action": ("recovery", "recovery: {command: ['true']}, "),
    "adopted": ("status", ""),
    "decided": ("status", ""),
    "switch": ("switch", ""),
    "metrics": ("metrics", ""),
    "settings": ("configuration", ""),
    "removal": ("configuration", ""),
    "clock": ("session", ""),
    "unpublishable": ("status", ""),
    "unvotable": ("status", ""),
}
"""A gateway for each place where an exception is injected; it is named after the place."""


def failing(original: Callable[..., Any], gateway: str, get_id: Callable[..., str]) -> Callable[..., Any]:
    """Return a function that fails for one gateway."""

    def run(*arguments: Any, **options: Any) -> Any:
        if get_id(*arguments) == gateway:
            raise TypeError(f"injected into {gateway}")
        return original(*arguments, **options)

    return run


def inject_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add an exception to each place, for the gateway that is named after it."""
    methods = {
        "result": "record_result",
        "session": "update_session",
        "expiry": "expire_silence",
        "silence": "set_silence",
        "decision": "next_recovery_event",
        "adopted": "adopt",
        "decided": "decide",
        "switch": "take_renewal",
        "removal": "stop",
        "clock": "shift_clock",
    }
    for place, name in methods.items():
        replaced = failing(getattr(MonitoredGateway, name), place, lambda self, *_: self.gateway.id)
        monkeypatch.setattr(MonitoredGateway, name, replaced)
    flapping: Any = inspect.getattr_static(GatewayState, "is_flapping")
    replaced = failing(flapping.fget, "metrics", lambda self: self.gateway.id)
    monkeypatch.setattr(MonitoredGateway, "is_flapping", property(replaced))
    replaced = failing(recovery_action.attempt, "action", lambda _, event: event.gateway_id)
    monkeypatch.setattr(recovery_action, "attempt", replaced)
    for place in ("probe", "connectivity"):
        replaced = failing(TcpProbe.probe, place, lambda self, *_: self.label)
        monkeypatch.setattr(TcpProbe, "probe", replaced)
    replaced = failing(vote_messages.vote_subject, "gateway.status.ctp.unvotable", lambda subject, _: subject)
    monkeypatch.setattr(vote_messages, "vote_subject", replaced)
    replaced = failing(Publisher.publish, "unpublishable", lambda _, event: getattr(event, "gateway_id", ""))
    monkeypatch.setattr(Publisher, "publish", replaced)


def write_file(path: Path, port: int, ports: dict[str, int], without: str = "") -> None:
    """Write a file with all gateways, except one."""
    lines = ["defaults: {interval: 200ms, timeout: 30s, unhealthy_after: 1, healthy_after: 1}", "gateways:"]
    for gateway in ("good", *PLACES):
        if gateway != without:
            options = PLACES.get(gateway, ("", ""))[1]
            probe = f"{{kind: tcp, label: {gateway}, address: '127.0.0.1:{ports.get(gateway, port)}'}}"
            lines.append(f"  - {{id: {gateway}, type: ctp, {options}probes: [{probe}]}}")
    lines.append(
        f"connectivity: {{probes: [{{kind: tcp, label: connectivity, address: '127.0.0.1:{port}'}}]}}"
    )
    path.write_text("\n".join(lines))


def test_an_exception_stays_with_its_gateway(
    nats_url: str,
    nats_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each failure is a line, a metric and a name in the health event; all other gateways are monitored."""
    path, names = tmp_path / "gateways.yaml", Names(nats_prefix)
    monkeypatch.setattr(watched_file, "STABLE_AFTER", 0.0)
    inject_everywhere(monkeypatch)

    async def main() -> None:
        closed, flaky = free_port(), free_port()
        async with (
            serving(hold) as port,
            listening(nats_url, nats_prefix) as statuses,
            Publisher(nats_url, prefix=nats_prefix) as publisher,
        ):
            ports = {"good": flaky, "action": closed}
            write_file(path, port, ports)
            monitor = Monitor("m1", path, load(path), publisher, names, 0.1)
            registry = CollectorRegistry()
            registry.register(MonitorCollector(monitor))
            stop = asyncio.Event()
            task = asyncio.create_task(monitor.run(stop))

            async def reach(condition: Callable[[], object]) -> None:
                async with asyncio.timeout(PATIENCE):
                    while not condition():
                        if task.done():
                            task.result()  # the monitor has failed
                        await asyncio.sleep(0.02)

            async with serving(hold, flaky):
                await statuses.until("good", "HEALTHY")
            await statuses.until("good", "UNHEALTHY")
            # A message of another producer, a silence and a step of the clock concern one gateway each.
            event = GatewayStatusChange(
                gateway_id="adopted",
                gateway_type="ctp",
                previous_status=Status.HEALTHY,
                current_status=Status.DEGRADED,
            )
            await statuses._client.publish(
                names.subject("gateway.status.ctp.adopted"), event.encode(), headers={"Nats-Msg-Id": "x"}
            )
            await silences.set_silence(statuses._client, names, "ctp/silence", 60.0, "test")
            monitor._shift_clock(0.0)
            generate_latest(registry)
            resolve = MonitorConfig.resolve_gateway
            replaced = failing(resolve, "settings", lambda _, gateway: gateway.id)
            monkeypatch.setattr(MonitorConfig, "resolve_gateway", replaced)
            write_file(path, port, ports, without="removal")
            expected = {("ctp", gateway, activity) for gateway, (activity, _) in PLACES.items()}
            await reach(lambda: expected <= monitor.failures.counts.keys())
            metrics = generate_latest(registry).decode()
            for gateway, (activity, _) in PLACES.items():
                labels = f'{{activity="{activity}",gateway="{gateway}",type="ctp"}}'
                assert f"tickertape_monitor_gateway_failures_total{labels}" in metrics
            # The gateway whose removal failed is removed; a file that cannot be loaded is rejected.
            await statuses.until("settings", "HEALTHY")
            loading, may_end = threading.Event(), threading.Event()

            def fail_slowly(path: Path) -> MonitorConfig:
                loading.set()
                may_end.wait(PATIENCE)
                raise TypeError("injected into the loader")

            monkeypatch.setattr(watched_file, "load", fail_slowly)
            write_file(path, port, ports)
            await reach(loading.is_set)
            # Switches are renewed and recoveries continue while a large file is read.
            before = monitor.housekeeping_at
            await reach(lambda: monitor.housekeeping_at > before)
            may_end.set()
            await reach(lambda: not monitor.file.accepted)
            monkeypatch.setattr(watched_file, "load", load)
            write_file(path, port, ports, without="removal")
            await reach(lambda: monitor.file.accepted)
            async with serving(hold, flaky):
                await statuses.until("good", "UNHEALTHY", "HEALTHY")
            health = await read_health(statuses._client, names)
            assert health["status"] == "DEGRADED"
            assert "injected into probe" in health["checks"]["failures"]["ctp/probe"]
            assert health["checks"]["online"] is True
            stop.set()
            await task
            assert set(statuses.of("probe")) == {"UNKNOWN"}

    asyncio.run(main())
    log = capsys.readouterr().err
    for gateway, (activity, _) in PLACES.items():
        assert f"ctp/{gateway}: unexpected error in {activity}" in log
    assert "connectivity check 'connectivity' failed: TypeError" in log
    assert "ctp/good: unexpected" not in log


async def read_health(client: Any, names: Names) -> dict[str, Any]:
    """Read the latest health event of the monitor that names a failure of the gateway ``probe``."""
    subject = names.subject("system.health.monitor.m1")
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(orjson.JSONDecodeError):
                reply = await client.request(
                    f"$JS.API.DIRECT.GET.{names.stream('EVENTS')}.{subject}", timeout=PATIENCE
                )
                health: dict[str, Any] = orjson.loads(reply.data)
                if "ctp/probe" in health["checks"]["failures"]:
                    return health
            await asyncio.sleep(0.05)
