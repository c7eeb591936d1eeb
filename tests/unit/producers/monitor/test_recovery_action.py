"""Recovery attempts: HTTP requests to a real server, and real commands."""

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


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ("exit 0", None),
        ("echo starting; exit 3", "exited with 3: starting"),
        ("echo starting; echo Failed to restart. >&2; exit 5", "exited with 5: Failed to restart."),
        ("exit 1", "exited with 1"),
        ("kill -KILL $$", "killed by SIGKILL"),
        ("test $TICKERTAPE_GATEWAY_ID = a -a $TICKERTAPE_ATTEMPT = 2", None),
    ],
)
def test_a_command_succeeds_with_exit_code_0(script: str, error: str | None) -> None:
    """Any other exit code is a failed attempt, with the last line of errors or of output."""
    settings = RecoverySettings.model_validate({"command": ["sh", "-c", script]})
    event = GatewayRecovery(gateway_id="a", gateway_type="ctp", phase="attempt", attempt=2)
    assert asyncio.run(attempt(settings, event)) == error


def test_a_command_that_does_not_exist() -> None:
    """The error names the program."""
    settings = RecoverySettings.model_validate({"command": ["/no/such/program", "x"]})
    event = GatewayRecovery(gateway_id="a", gateway_type="ctp", phase="attempt", attempt=1)
    error = "/no/such/program cannot be started: no such file or directory"
    assert asyncio.run(attempt(settings, event)) == error
