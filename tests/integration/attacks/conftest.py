"""One NATS server for all attacks, with an honest client beside each of them.

Each module has its own ``relay`` and subject prefix.
"""

import re
from collections.abc import Iterator
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.clients import forge
from tests.support.clients.honest_client import Honest
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer

SECRET: Final = re.compile(rf"eyJ|{forge.SECRET.decode()}|PRIVATE KEY|BEGIN PUBLIC|hunter2")
"""A text that is part of every token, key and password in these tests."""


@pytest.fixture(scope="package")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run the server."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def prefix(request: pytest.FixtureRequest) -> str:
    """Return the subject prefix of a module."""
    return str(request.module.__name__).rpartition(".")[2]


@pytest.fixture(scope="module")
def honest_token() -> str | None:
    """Return the honest client's token; modules whose relay requires tokens override this."""
    return None


@pytest.fixture(scope="module")
def honest(relay: Relay, honest_token: str | None, prefix: str) -> Iterator[Honest]:
    """Connect a client before any attack."""
    with Honest(relay, honest_token, f"{prefix}.") as client:
        yield client


@pytest.fixture(autouse=True)
def unharmed(relay: Relay, honest: Honest) -> Iterator[None]:
    """Check after each attack that the honest client was not affected, no secret leaked, and no error was
    logged.
    """
    yield
    honest.noticed_nothing()
    output = "".join([*relay.lines, *relay.log])
    pages = (
        output
        + page(f"{relay.ops_url}/metrics")
        + page(f"{relay.ops_url}/statusz")
        + page(f"{relay.url}/health")
    )
    assert SECRET.search(pages) is None
    assert "Traceback" not in output
    assert "internal error" not in output


def page(url: str) -> str:
    """Return the text of a page."""
    try:
        with urlopen(url) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return str(error.read().decode())
