"""Pages about gateways and silences, served by one process, by several workers, and by a host application."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any, Final
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest
from tickertape.contracts.events import GatewayStatusChange, Status, format_time
from tickertape.contracts.gateway_pages import (
    GatewayHistoryPage,
    GatewaysPage,
    IncidentsPage,
    Page,
    SilenceResult,
    StatePage,
)
from tickertape.producers.monitor.coordination import silences

from tests.support.clients.feed_client import PATIENCE, jetstream, publish, run
from tests.support.clients.forge import SECRET, token
from tests.support.programs.asgi_host import Host
from tests.support.programs.relay_process import Relay, eventually
from tests.support.programs.worker_desk import slots
from tests.support.servers.nats_server import NatsServer
from tickertape.names import Names
from tickertape.nats import connection, streams

START: Final = 1_700_000_000
REQUESTS: Final = 6
"""Number of requests for each page; the kernel distributes them over the workers."""


@contextlib.contextmanager
def one_process(url: str) -> Iterator[str]:
    """Run a relay, and yield the URL of its pages."""
    keys = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": SECRET.decode()}
    with Relay(url, "--auth", "jwt", "--control", **keys) as relay:
        yield relay.url


@contextlib.contextmanager
def two_workers(url: str) -> Iterator[str]:
    """Run a relay with two workers, and yield the URL of its pages once both have loaded the history."""
    keys = {"TICKERTAPE_JWT_ALGORITHM": "HS256", "TICKERTAPE_JWT_KEY": SECRET.decode()}
    with Relay(url, "--auth", "jwt", "--control", "--workers", "2", **keys) as relay:
        eventually(
            lambda: all(slot["status"] and slot["status"]["history"]["loaded"] for slot in slots(relay)),
            "both workers have loaded the history",
        )
        yield relay.url


@contextlib.contextmanager
def fastapi(url: str) -> Iterator[str]:
    """Serve a relay that is mounted in a FastAPI application by uvicorn, and yield the URL of its pages."""
    options = {"auth": "jwt", "jwt_algorithm": "HS256", "jwt_key": SECRET.decode(), "control": True}
    with Host({"/feed": {"nats_url": url, **options}}) as host:
        host.until_ready()
        yield host.url("/feed")


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """Run a server with the history of a gateway that has failed once, and of one that it does not show."""

    async def fill() -> None:
        async with jetstream(server.url) as js:
            await streams.provision(js._nc, Names())
            for second, status in enumerate((Status.HEALTHY, Status.UNHEALTHY, Status.HEALTHY)):
                for gateway, kind in (("a/b", "ctp"), ("hidden", "ib")):
                    event = GatewayStatusChange(
                        timestamp=format_time(START + second),
                        gateway_id=gateway,
                        gateway_type=kind,
                        previous_status=Status.UNKNOWN,
                        current_status=status,
                    )
                    await publish(js, event)

    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        run(fill())
        yield server


def ask(url: str, bearer: str, method: str = "GET") -> tuple[int, bytes]:
    """Return status and body of a response."""
    request = Request(url, method=method, headers={"Authorization": f"Bearer {bearer}"})
    try:
        with urlopen(request, timeout=PATIENCE) as page:
            return page.status, page.read()
    except HTTPError as error:
        with error:
            return error.code, error.read()


@pytest.mark.parametrize("serve", [one_process, two_workers, fastapi])
def test_pages_and_silences_are_the_same_everywhere(
    nats: NatsServer, serve: Callable[[str], contextlib.AbstractContextManager[str]]
) -> None:
    """Every process that answers has the whole history, the same rights, and stores silences."""
    claims = {"sub": "alice", "exp": int(time.time()) + 3600}
    grant: dict[str, Any] = {"subjects": ["gateway.*.ctp.>"]}
    reader = token(values={**claims, "tickertape": grant})
    operator = token(values={**claims, "tickertape": {**grant, "control": True}})

    async def stored() -> dict[str, Any]:
        client = await connection.connect_once(nats.url, name="test")
        try:
            return await silences.read(client, Names())
        finally:
            await client.close()

    since = f"since={format_time(START - 1)}&until={format_time(START + 3)}"
    pages: dict[str, type[Page]] = {
        f"/gateways?{since}": GatewaysPage,
        f"/gateways/ctp/a=2Fb/history?{since}": GatewayHistoryPage,
        f"/gateways/ctp/a%2Fb/history?{since}": GatewayHistoryPage,
        f"/incidents?{since}": IncidentsPage,
        f"/state?at={format_time(START + 1)}": StatePage,
    }
    with serve(nats.url) as url:
        eventually(lambda: ask(f"{url}/gateways", reader)[0] == 200, "the history is loaded")
        for path, model in pages.items():
            responses = {ask(url + path, reader) for _ in range(REQUESTS)}
            ((code, body),) = responses
            assert code == 200, (path, body)
            page = model.model_validate_json(body)
            assert page.model_dump(mode="json", exclude_unset=True) == orjson.loads(body)
            assert b"hidden" not in body
            if isinstance(page, IncidentsPage):
                assert [(one.gateway_id, one.down_s) for one in page.incidents] == [("a/b", 1.0)]
            if isinstance(page, StatePage):
                assert [one.status for one in page.gateways] == [Status.UNHEALTHY]
            if isinstance(page, GatewayHistoryPage):
                assert len(page.statuses) == 3
        assert ask(f"{url}/gateways/ib/hidden/history", reader)[0] == 404
        silence = f"{url}/gateways/ctp/a=2Fb/silence"
        for _ in range(REQUESTS):
            reason = f"move-{time.monotonic_ns()}"
            code, body = ask(f"{silence}?reason={reason}", operator, "POST")
            assert (code, SilenceResult.model_validate_json(body).reason) == (200, reason)
            found = run(stored())["gateway.status.ctp.a=2Fb"]
            assert (found.reason, found.by) == (reason, "alice")
            assert ask(f"{silence}?reason=x", reader, "POST")[0] == 403
            assert ask(f"{url}/gateways/ib/hidden/silence?reason=x", operator, "POST")[0] == 404
        assert ask(silence, operator, "DELETE")[0] == 200
        assert run(stored())["gateway.status.ctp.a=2Fb"].until <= time.time()
