"""The browser that the tests of one process share ends with them."""

import sys
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def browser_ends() -> Iterator[None]:
    """End it, if a test has started it."""
    yield
    if (desk := sys.modules.get("tests.support.browser.browser_desk")) is not None:
        desk.close()
