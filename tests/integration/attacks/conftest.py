"""One NATS server for all attacks, and beside each of them an honest client.

Each module has a ``relay`` of its own; the prefix of its subjects is the module's.
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
"""What every token, key and password of these tests has in it."""


@pytest.fixture(scope="package")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """The server."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server


@pytest.fixture(scope="module")
def prefix(request: pytest.FixtureRequest) -> str:
    """Prefix of a module's subjects."""
    return str(request.module.__name__).rpartition(".")[2]


@pytest.fixture(scope="module")
def honest_token() -> str | None:
    """What the honest client shows; a module whose relay wants tokens has its own."""
    return None


@pytest.fixture(scope="module")
def honest(relay: Relay, honest_token: str | None, prefix: str) -> Iterator[Honest]:
    """A client that is there before any attack."""
    with Honest(relay, honest_token, f"{prefix}.") as client:
        yield client


@pytest.fixture(autouse=True)
def unharmed(relay: Relay, honest: Honest) -> Iterator[None]:
    """After each attack: the honest client noticed nothing, no secret came out, no fault was met."""
    yield
    honest.noticed_nothing()
    said = "".join([*relay.lines, *relay.log])
    pages = (
        said
        + page(f"{relay.ops_url}/metrics")
        + page(f"{relay.ops_url}/statusz")
        + page(f"{relay.url}/health")
    )
    assert SECRET.search(pages) is None
    assert "Traceback" not in said
    assert "internal error" not in said


def page(url: str) -> str:
    """What a page says."""
    try:
        with urlopen(url) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return str(error.read().decode())
