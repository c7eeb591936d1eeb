"""The embedded NATS server, which is a real one."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE
from tickertape.nats.embedded_server import EmbeddedNats


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_server_receives_no_secrets_of_the_relay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has the relay's environment, except Tickertape's own settings."""
    monkeypatch.setenv("TICKERTAPE_JWT_KEY", "hunter2")
    monkeypatch.setenv("GOMAXPROCS", "1")

    async def main() -> bytes:
        server = EmbeddedNats(tmp_path, 0)
        async with asyncio.timeout(PATIENCE):
            await server.start()
        try:
            assert server._process is not None
            return Path(f"/proc/{server._process.pid}/environ").read_bytes()
        finally:
            await server.stop()

    found = asyncio.run(main()).split(b"\0")
    assert b"GOMAXPROCS=1" in found
    assert not [entry for entry in found if entry.startswith(b"TICKERTAPE")]
