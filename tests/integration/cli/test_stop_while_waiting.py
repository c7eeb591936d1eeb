"""A program that waits for a peer still ends when it is told to: no exchange delays the end of the process.

The peers send something all the time, so that no single read of them times out, or resolve no name at all.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.clients.feed_client import run
from tests.support.patience import PATIENCE
from tests.support.programs.relay_process import command, environment
from tests.support.programs.silent_resolver import SilentResolver, silent_resolver
from tests.support.servers.nats_server import NatsServer
from tests.support.servers.slow_server import SlowServer, slow_server

BOUND = 30.0
"""Seconds for a program to end: much more than any grace period, and much less than a look-up that hangs."""

NAME = "name.invalid.example"
JWT = ("--auth", "jwt", "--jwt-algorithm", "EdDSA", "--jwt-jwks-url")


@contextlib.asynccontextmanager
async def program(*arguments: str, prefix: tuple[str, ...] = ()) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a command in the background; kill it at the end if it still runs."""
    process = await asyncio.create_subprocess_exec(
        *prefix, *command(*arguments), env=environment(),
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def ends(process: asyncio.subprocess.Process) -> None:
    """Send SIGTERM to the program, and wait until it has ended."""
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(BOUND):
        await process.communicate()


async def accepted(server: SlowServer) -> None:
    """Wait until the program has connected to a slow server."""
    async with server.changed, asyncio.timeout(PATIENCE):
        await server.changed.wait_for(lambda: server.open > 0)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (
            "status line byte by byte",
            (*("serve", "--port", "0", "--ops-port", "0"), *JWT, "http://127.0.0.1:PORT/"),
        ),
        ("endless body", (*("serve", "--port", "0", "--ops-port", "0"), *JWT, "http://127.0.0.1:PORT/")),
        (
            "NATS INFO byte by byte",
            ("serve", "--port", "0", "--ops-port", "0", "--nats-url", "nats://127.0.0.1:PORT"),
        ),
        (
            "NATS INFO byte by byte",
            ("publish", "log.info.me", '{"message": "x"}', "--nats-url", "nats://127.0.0.1:PORT"),
        ),
        ("never answers", ("streams", "--nats-url", "nats://127.0.0.1:PORT")),
        ("half a TLS handshake", ("tail", "--url", "wss://127.0.0.1:PORT/ws")),
        ("endless headers", ("tail", "--url", "ws://127.0.0.1:PORT/ws")),
        ("endless line", ("tail", "--url", "ws://127.0.0.1:PORT/ws")),
    ],
)
def test_a_slow_peer_does_not_delay_the_end(
    kind: str, arguments: tuple[str, ...], nats_server: NatsServer
) -> None:
    """SIGTERM ends a program in the middle of an exchange, whatever the peer does."""

    async def scenario() -> None:
        async with slow_server(kind) as server:
            filled = [part.replace("PORT", str(server.port)) for part in arguments]
            if "--nats-url" not in filled and filled[0] == "serve":
                filled += ["--nats-url", nats_server.url]
            async with program(*filled) as process:
                await accepted(server)
                await ends(process)

    run(scenario())


def test_slow_gateways_do_not_delay_the_end_of_a_monitor(nats_server: NatsServer, tmp_path: Path) -> None:
    """SIGTERM ends a monitor while probes of every kind are in progress."""

    async def scenario() -> None:
        async with contextlib.AsyncExitStack() as stack:
            servers = {
                probe: await stack.enter_async_context(slow_server(kind))
                for probe, kind in (
                    ("tcp", "never answers"),
                    ("tls", "half a TLS handshake"),
                    ("http", "endless headers"),
                    ("websocket", "endless headers"),
                    ("fix", "FIX byte by byte"),
                )
            }
            address = {probe: f"127.0.0.1:{server.port}" for probe, server in servers.items()}
            fifo = tmp_path / "started"
            probes: list[dict[str, Any]] = [
                {"kind": "tcp", "address": address["tcp"], "hold": "9m"},
                {"kind": "tls", "address": address["tls"]},
                {"kind": "http", "url": f"http://{address['http']}/"},
                {"kind": "websocket", "url": f"ws://{address['websocket']}/"},
                {"kind": "fix", "address": address["fix"], "sender_comp_id": "a", "target_comp_id": "b"},
                {"kind": "exec", "command": ["sh", "-c", f"trap '' TERM; touch {fifo}; sleep 600"]},
            ]
            config = tmp_path / "gateways.yaml"
            schedule = {"interval": "50ms", "timeout": "9m"}
            config.write_text(
                yaml.safe_dump(
                    {"defaults": schedule, "gateways": [{"id": "a", "type": "b", "probes": probes}]}
                )
            )
            options = ("--nats-url", nats_server.url, "--fix-state-dir", str(tmp_path / "fix"))
            async with program("monitor", "--gateways", str(config), *options) as process:
                for server in servers.values():
                    await accepted(server)
                async with asyncio.timeout(PATIENCE):
                    while not fifo.exists():
                        await asyncio.sleep(0.01)
                await ends(process)

    run(scenario())


@pytest.mark.parametrize("name", ["jwks", "nats", "tail", "probes"])
def test_a_silent_resolver_does_not_delay_the_end(name: str, nats_server: NatsServer, tmp_path: Path) -> None:
    """SIGTERM ends a program while the look-up of a name hangs."""
    config = tmp_path / "gateways.yaml"
    probes: list[dict[str, Any]] = [
        {"kind": "tcp", "address": f"{NAME}:1"},
        {"kind": "http", "url": f"http://a.{NAME}/"},
        {"kind": "websocket", "url": f"ws://b.{NAME}/"},
    ]
    schedule = {"interval": "50ms", "timeout": "500ms", "unhealthy_after": 1}
    config.write_text(
        yaml.safe_dump({"defaults": schedule, "gateways": [{"id": "a", "type": "b", "probes": probes}]})
    )
    serve = ("serve", "--port", "0", "--ops-port", "0", "--nats-url")
    arguments = {
        "jwks": (*serve, nats_server.url, *JWT, f"https://{NAME}/keys"),
        "nats": (*serve, f"nats://{NAME}:4222"),
        "tail": ("tail", "--url", f"ws://{NAME}/ws"),
        "probes": ("monitor", "--gateways", str(config), "--nats-url", nats_server.url),
    }[name]

    async def scenario(resolver: SilentResolver) -> None:
        async with program(*arguments, prefix=resolver.prefix) as process:
            await resolver.queried()
            await ends(process)

    with silent_resolver(tmp_path) as resolver:
        run(scenario(resolver))


def test_a_silent_resolver_does_not_delay_the_end_of_a_check(tmp_path: Path) -> None:
    """``check FILE`` reports names that do not resolve in time, and ends."""
    config = tmp_path / "gateways.yaml"
    probe = {"kind": "tcp", "address": f"{NAME}:1"}
    config.write_text(yaml.safe_dump({"gateways": [{"id": "a", "type": "b", "probes": [probe]}]}))

    async def scenario(resolver: SilentResolver) -> None:
        async with program("check", str(config), prefix=resolver.prefix) as process:
            await resolver.queried()
            async with asyncio.timeout(BOUND):
                assert await process.wait() == 1

    with silent_resolver(tmp_path) as resolver:
        run(scenario(resolver))
