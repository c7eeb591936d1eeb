"""The README's Python examples, run unchanged except for the URL; each publishes an event."""

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection, streams

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = [
    block
    for block in re.findall(r"^```python\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if re.search(r"^\s*(?:import|from) tickertape\b", block, re.MULTILINE) and "tickertape_app" not in block
]


async def last_sequence(url: str, *, provision: bool = False) -> int:
    client = await connection.connect(url, name="test")
    try:
        if provision:
            await streams.provision(client, Names())
        return int((await client.jetstream().stream_info("EVENTS")).state.last_seq)
    finally:
        await connection.close(client)


def test_there_are_examples() -> None:
    """The README has Python examples, and they use the URL that the tests replace."""
    assert BLOCKS
    assert all("nats://127.0.0.1:4222" in block for block in BLOCKS)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_an_example_publishes(nats_server: NatsServer, tmp_path: Path, number: int) -> None:
    """An example runs as a program of its own, exits with 0, and has published."""
    assert asyncio.run(last_sequence(nats_server.url, provision=True)) == 0
    program = tmp_path / "example.py"
    program.write_text(BLOCKS[number].replace("nats://127.0.0.1:4222", nats_server.url), encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert asyncio.run(last_sequence(nats_server.url)) >= 1
