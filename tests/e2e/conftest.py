"""Fixture that closes the browser shared by the tests of a process."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def browser_ends() -> Iterator[None]:
    """Close the browser after the last test, if it was started."""
    yield
    if (desk := sys.modules.get("tests.support.browser.browser_desk")) is not None:
        desk.close()
