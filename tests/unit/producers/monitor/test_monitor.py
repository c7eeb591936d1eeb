"""The set of monitored gateways."""

import asyncio
from pathlib import Path

from tickertape.producers.monitor.config.models import MonitorConfig
from tickertape.producers.monitor.monitor import Monitor
from tickertape.producers.sdk.publisher import Publisher

from tickertape.names import Names


def config_with(interval: str) -> MonitorConfig:
    """Return a file with one gateway, which may be recovered once per hour."""
    probe = {"kind": "tcp", "address": "h:1", "interval": interval}
    recovery = {"command": ["true"], "per_hour": 1}
    return MonitorConfig.model_validate(
        {"gateways": [{"id": "main", "type": "ctp", "probes": [probe], "recovery": recovery}]}
    )


def test_the_limit_of_recovery_attempts_outlives_the_settings() -> None:
    """Attempts are counted per gateway: changing its settings does not allow further ones."""

    async def main() -> list[str]:
        monitor = Monitor(
            "m1", Path("none"), config_with("5s"), Publisher("nats://127.0.0.1:1"), Names(), 9.0
        )
        phases: list[str] = []
        for number, interval in enumerate(("5s", "6s", "7s")):
            now = 1_000.0 * number
            (gateway,) = config_with(interval).resolve_gateways()
            recovery = monitor._monitored_gateway(gateway, None, now)._recovery
            assert recovery is not None
            recovery.start(now)
            event = recovery.next_event(now)
            assert event is not None
            phases.append(event.phase)
        return phases

    assert asyncio.run(main()) == ["attempt", "failed", "failed"]
