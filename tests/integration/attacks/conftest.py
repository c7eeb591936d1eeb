"""One NATS server for all attacks, with an honest client beside each of them.

Each module has its own ``relay`` and subject prefix. A module whose ``relay`` comes from ``deploy`` runs
against every deployment; the mark ``deployments`` restricts a test to some of them.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.support.clients import forge
from tests.support.clients.honest_client import Honest
from tests.support.programs.deployment import KINDS, Deployment, deployed
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


Deploy = Callable[..., AbstractContextManager[Deployment]]
"""Function that runs a relay with settings by name."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run tests of ``deploy`` once for each deployment."""
    if "deployment_kind" in metafunc.fixturenames:
        mark = metafunc.definition.get_closest_marker("deployments")
        metafunc.parametrize("deployment_kind", mark.args if mark else KINDS, scope="module")


@pytest.fixture(scope="module")
def deploy(prefix: str, deployment_kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deploy]:
    """Return the function that runs a module's relay in one deployment, with the module's prefix.

    Each deployment has its own NATS server, so that it starts with empty streams.
    """

    @contextmanager
    def run(**settings: str) -> Iterator[Deployment]:
        files = tmp_path_factory.mktemp(deployment_kind)
        with deployed(deployment_kind, server.url, files, subject_prefix=prefix, **settings) as running:
            yield running
            check_pages(running)

    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield run


@pytest.fixture(scope="module")
def honest_token() -> str | None:
    """Return the honest client's token; modules whose relay requires tokens override this."""
    return None


@pytest.fixture(scope="module")
def honest(relay: Relay | Deployment, honest_token: str | None, prefix: str) -> Iterator[Honest]:
    """Connect a client before any attack."""
    with Honest(relay, honest_token, f"{prefix}.") as client:
        yield client


@pytest.fixture(autouse=True)
def unharmed(relay: Relay | Deployment, honest: Honest) -> Iterator[None]:
    """Check after each attack that the honest client was not affected, no secret leaked, and no error was
    logged.
    """
    before = len(relay.output)
    yield
    honest.noticed_nothing()
    output = "".join(relay.output[before:])
    assert SECRET.search(output) is None
    assert "Traceback" not in output
    assert "internal error" not in output
    # Those of a deployment are read once, after all of its attacks.
    if isinstance(relay, Relay):
        check_pages(relay)


def check_pages(relay: Relay | Deployment) -> None:
    """Check that no page for operators contains a secret."""
    for url in (f"{relay.ops_url}/metrics", f"{relay.ops_url}/statusz", f"{relay.url}/health"):
        assert SECRET.search(page(url)) is None


def page(url: str) -> str:
    """Return the text of a page."""
    try:
        with urlopen(url) as answer:
            return str(answer.read().decode())
    except HTTPError as error:
        with error:
            return str(error.read().decode())
