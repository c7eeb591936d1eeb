"""Fixtures for tests of complete programs."""

import fcntl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def one_demo() -> Iterator[None]:
    """Serialize demos: two that start together choose the same NATS port."""
    with (Path(tempfile.gettempdir()) / "tickertape-tests-demo.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
