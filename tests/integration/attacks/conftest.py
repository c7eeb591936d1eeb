"""One NATS server for all attacks, and beside each of them an honest client.

Each module has a ``relay`` of its own; the prefix of its subjects is the module's.
"""

from collections.abc import Iterator

import pytest

from tests.honest_client import Honest
from tests.nats_server import NatsServer
from tests.relay_process import Relay


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
def unnoticed(honest: Honest) -> Iterator[None]:
    """After each attack, the honest client has not noticed it."""
    yield
    honest.noticed_nothing()
