"""Every error response is JSON with ``code`` and ``message``, whatever its source."""

import asyncio
from collections.abc import Callable
from typing import Any, NoReturn, cast

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.page_budget import PageBudget
from tickertape.relay.endpoints.routes import main_app, mounted_app, relay_ops_app
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.transport.connections import Connections

from tickertape.names import Names
from tickertape.nats.streams import StreamsError


def raising(error: Exception) -> Callable[..., NoReturn]:
    """Return a function that raises this error."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


class BrokenHistory:
    """History whose pages raise an error."""

    def __init__(self, error: Exception) -> None:
        self.page = raising(error)
        self.budget = PageBudget()


def verify(token: str) -> Grant:
    """Return the grant of the valid token, and reject all others."""
    if token == "none":
        raise ProtocolError(ErrorCode.FORBIDDEN, "nothing granted")
    if token != "good":
        raise ProtocolError(ErrorCode.UNAUTHORIZED, "bad token")
    return Grant(subject="a")


def fetch(app: ASGIApp, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Send a request to an application as uvicorn does, and return the response."""

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {}}, receive, send)

    async def send_request() -> httpx.Response:
        transport = httpx.ASGITransport(app=with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send_request())


def app_with_failing_history(error: Exception, make_app: Any) -> ASGIApp:
    """Return a relay's application whose history raises an error."""
    hub = Hub(HubSettings(), lambda: None)
    connections = Connections(hub, lambda: 0.0, RequestAuth(verify, Origins()), Admission(Limits()))
    gateways = GatewayHistory(hub, Names(), ())
    return cast(ASGIApp, make_app(connections, cast(History, BrokenHistory(error)), gateways))


GOOD = {"Authorization": "Bearer good"}
FAULT = RuntimeError("broken on purpose")
UNAVAILABLE = StreamsError("the stream does not answer", "try again")


@pytest.mark.parametrize("make_app", [main_app, mounted_app])
@pytest.mark.parametrize(
    ("status", "code", "method", "path", "headers", "error"),
    [
        (400, "bad_query", "GET", "/events?limit=0", GOOD, FAULT),
        (400, "bad_query", "GET", "/events?subject=log.%3E", GOOD, FAULT),
        (400, "bad_cursor", "GET", "/events", GOOD, ProtocolError(ErrorCode.BAD_CURSOR, "of another stream")),
        (401, "unauthorized", "GET", "/events", {}, FAULT),
        (401, "unauthorized", "GET", "/events", {"Authorization": "Bearer x"}, FAULT),
        (403, "forbidden", "GET", "/events", {"Authorization": "Bearer none"}, FAULT),
        (403, "forbidden", "GET", "/events", {"Origin": "https://evil.example"}, FAULT),
        (404, "bad_query", "GET", "/nowhere", GOOD, FAULT),
        (404, "bad_query", "GET", "/events/nowhere", GOOD, FAULT),
        (405, "bad_query", "POST", "/events", GOOD, FAULT),
        (405, "bad_query", "DELETE", "/health", GOOD, FAULT),
        (426, "upgrade_required", "GET", "/ws", GOOD, FAULT),
        (500, "internal", "GET", "/events", GOOD, FAULT),
        (503, "unavailable", "GET", "/events", GOOD, UNAVAILABLE),
    ],
)
def test_an_error_is_json(
    make_app: Any, status: int, code: str, method: str, path: str, headers: dict[str, str], error: Exception
) -> None:
    """An error is JSON with its code and the headers that its status requires."""
    response = fetch(app_with_failing_history(error, make_app), method, path, headers)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["cache-control"] == "no-store"
    body = response.json()
    assert set(body) == {"code", "message"}
    assert body["code"] == code
    assert body["message"]
    assert "broken on purpose" not in response.text
    if status == 405:
        assert "GET" in response.headers["allow"]
    if status == 426:
        assert response.headers["sec-websocket-version"] == "13"
        assert response.headers["upgrade"] == "websocket"
        assert response.headers["connection"] == "Upgrade"


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [(404, "GET", "/"), (405, "POST", "/metrics"), (405, "OPTIONS", "/readyz"), (500, "GET", "/readyz")],
)
def test_an_error_of_the_ops_port_is_json(status: int, method: str, path: str) -> None:
    """Errors on the operations port are JSON, as on the main port."""
    connections = Connections(Hub(HubSettings(), lambda: None), lambda: 0.0)
    history = GatewayHistory(connections.hub, Names(), (">",))
    app = relay_ops_app(connections, history, raising(FAULT), lambda: 0, raising(FAULT), lambda: True)
    response = fetch(app, method, path)
    assert response.status_code == status
    assert set(response.json()) == {"code", "message"}
    assert ("allow" in response.headers) == (status == 405)
