"""A recovery attempt over HTTP with a real server."""

import asyncio
from typing import get_args

import pytest
from tickertape.contracts.events import GatewayRecovery
from tickertape.producers.monitor.gateway.recovery_policy import RecoverySettings
from tickertape.producers.monitor.recovery_action import attempt

METHODS = get_args(RecoverySettings.model_fields["method"].annotation)


@pytest.mark.parametrize(("status", "error"), [(200, None), (202, None), (503, "503")])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_settings_is_sent(method: str, status: int, error: str | None) -> None:
    """Every configurable method is sent, and POST and PUT have an explicit content length of 0."""
    heads: list[str] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def main() -> str | None:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = RecoverySettings.model_validate(
                {"url": f"http://127.0.0.1:{port}/restart", "method": method}
            )
            event = GatewayRecovery(gateway_id="a", gateway_type="ctp", phase="attempt", attempt=1)
            return await attempt(settings, event)

    found = asyncio.run(main())
    assert found is None if error is None else error in (found or "")
    [head] = heads
    assert head.startswith(f"{method} /restart HTTP/1.1\r\n")
    assert ("content-length: 0" in head.lower()) is (method in ("POST", "PUT"))
