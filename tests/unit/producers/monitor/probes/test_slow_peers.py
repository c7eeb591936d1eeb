"""Probes of every kind against peers that send something all the time but never finish."""

import asyncio
from typing import Any

import pytest
from pydantic import TypeAdapter
from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor import recovery_action
from tickertape.producers.monitor.gateway.model import Check
from tickertape.producers.monitor.gateway.probe_health import Outcome
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.probes import Probe, ProbeContext, ProbeSettings, run

from tests.support.patience import PATIENCE
from tests.support.servers.slow_server import PIECES, slow_server

TIMEOUT = 0.3
"""Seconds for a probe that is expected to time out."""

FIX = {"sender_comp_id": "a", "target_comp_id": "b"}
PROBES: list[dict[str, Any]] = [
    {"kind": "tls", "address": "127.0.0.1:PORT"},
    {"kind": "http", "url": "http://127.0.0.1:PORT/"},
    {"kind": "http", "url": "https://127.0.0.1:PORT/"},
    {"kind": "websocket", "url": "ws://127.0.0.1:PORT/"},
    {"kind": "websocket", "url": "wss://127.0.0.1:PORT/"},
    {"kind": "tcp", "address": "127.0.0.1:PORT", "expect": "^never$"},
    {"kind": "http", "url": "http://127.0.0.1:PORT/", "body_matches": "never", "follow_redirects": True},
    {"kind": "dns", "address": "127.0.0.1:PORT", "query": "a.test", "transport": "tcp"},
    {"kind": "grpc", "address": "127.0.0.1:PORT"},
    {"kind": "fix", "address": "127.0.0.1:PORT", **FIX},
    {"kind": "fix", "address": "127.0.0.1:PORT", "tls": True, **FIX},
]


@pytest.mark.parametrize("kind", PIECES)
def test_a_probe_ends_within_its_timeout(kind: str) -> None:
    """Every probe fails by its timeout, or earlier if the response is invalid, and closes its connection."""

    async def check(settings: dict[str, Any]) -> None:
        async with slow_server(kind) as server:
            filled = {
                key: value.replace("PORT", str(server.port)) if isinstance(value, str) else value
                for key, value in settings.items()
            }
            probe: ProbeSettings = TypeAdapter(Probe).validate_python(filled)
            result = await run(Check(probe, 5.0, TIMEOUT, 3, 2), ProbeContext())
            assert result is not None
            assert result.outcome is Outcome.FAILED, settings
            await server.wait_until_closed()

    async def main() -> None:
        await asyncio.gather(*map(check, PROBES))

    asyncio.run(asyncio.wait_for(main(), PATIENCE))


@pytest.mark.parametrize("kind", PIECES)
def test_a_recovery_request_ends_within_its_timeout(kind: str) -> None:
    """A recovery request fails by its timeout."""

    async def main() -> str | None:
        async with slow_server(kind) as server:
            settings = RecoverySettings.model_validate(
                {"url": f"http://127.0.0.1:{server.port}/", "timeout": "300ms"}
            )
            event = GatewayRecovery(gateway_id="a", gateway_type="ctp", phase="attempt", attempt=1)
            error = await recovery_action.attempt(settings, event)
            await server.wait_until_closed()
            return error

    assert asyncio.run(asyncio.wait_for(main(), PATIENCE))


def test_a_redirect_to_an_invalid_address_is_a_failure() -> None:
    """A peer cannot end the monitor by a redirect that no client can parse."""

    async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: //[\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async def main() -> None:
        async with await asyncio.start_server(redirect, "127.0.0.1", 0) as server:
            url = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
            probe: ProbeSettings = TypeAdapter(Probe).validate_python({"kind": "websocket", "url": url})
            result = await run(Check(probe, 5.0, PATIENCE, 3, 2), ProbeContext())
            assert result is not None
            assert result.outcome is Outcome.FAILED

    asyncio.run(asyncio.wait_for(main(), PATIENCE))
