"""The NATS fixture that the other integration tests use."""

import asyncio
import contextlib
import os
import socket
from pathlib import Path

import nats
import pytest

from tests.support.servers.nats_server import NatsServer, free_port


def test_a_message_survives_stop_kill_and_restart(nats_server: NatsServer) -> None:
    """Port and data survive every kind of exit."""
    url = nats_server.url

    async def publish(number: int) -> int:
        nc = await nats.connect(url)
        js = nc.jetstream()
        if number == 1:
            await js.add_stream(name="S", subjects=["s"])
        ack = await js.publish("s", b"x")
        await nc.close()
        return ack.seq

    assert asyncio.run(publish(1)) == 1
    first = nats_server.pid
    nats_server.stop()
    assert not nats_server.running
    nats_server.start()
    assert nats_server.url == url
    assert nats_server.pid != first
    assert asyncio.run(publish(2)) == 2
    nats_server.kill()
    nats_server.start()
    assert asyncio.run(publish(3)) == 3


def test_a_paused_server_is_ended(nats_server: NatsServer) -> None:
    """A frozen server is stopped like any other, and leaves no process."""
    pid = nats_server.pid
    nats_server.pause()
    nats_server.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="does not run"):
        _ = nats_server.pid


def test_nothing_runs_after_a_failing_test(tmp_path: Path) -> None:
    """The context manager stops the server when its body raises."""
    pid = 0
    with contextlib.suppress(ZeroDivisionError), NatsServer(tmp_path) as server:
        pid = server.pid
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_bad_configuration_is_reported(tmp_path: Path) -> None:
    """The error of a server that does not start contains its log."""
    with pytest.raises(RuntimeError, match="nonsense"):
        NatsServer(tmp_path, config="nonsense }").start()


def test_a_port_in_use_is_reported(tmp_path: Path) -> None:
    """A given port that another process uses is an error."""
    port = free_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(RuntimeError, match="address already in use"):
            NatsServer(tmp_path, port=port).start()
