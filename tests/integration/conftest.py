"""Fixtures for tests of whole programs."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def one_demo() -> Iterator[None]:
    """Run no other demo meanwhile: two that start together choose the same port for NATS."""
    with (Path(tempfile.gettempdir()) / "tickertape-tests-demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
