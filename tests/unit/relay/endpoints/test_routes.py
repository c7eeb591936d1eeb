"""Every error of a page is JSON with ``code`` and ``message``, wherever it comes from."""

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
from tickertape.relay.endpoints.routes import main_app, mounted_app, relay_ops_app
from tickertape.relay.transport.connections import Connections

from tickertape.nats.streams import StreamsError


def raising(error: Exception) -> Callable[..., NoReturn]:
    """A function that has only this to say."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


class Broken:
    """History that cannot be had."""

    def __init__(self, error: Exception) -> None:
        self.page = raising(error)


def verify(token: str) -> Grant:
    """Know two tokens."""
    if token == "none":
        raise ProtocolError(ErrorCode.FORBIDDEN, "nothing granted")
    if token != "good":
        raise ProtocolError(ErrorCode.UNAUTHORIZED, "bad token")
    return Grant(subject="a")


def ask(pages: ASGIApp, method: str, path: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Ask for a page, as uvicorn hands a request on."""

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await pages({**scope, "state": {}}, receive, send)

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app=with_state, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(asked())


def pages_of(error: Exception, make: Any) -> ASGIApp:
    """The pages of a relay whose history raises."""
    hub = Hub(HubSettings(), lambda: None)
    connections = Connections(hub, lambda: 0.0, RequestAuth(verify, Origins()), Admission(Limits()))
    return cast(ASGIApp, make(connections, cast(History, Broken(error))))


GOOD = {"Authorization": "Bearer good"}
FAULT = RuntimeError("broken on purpose")
AWAY = StreamsError("the stream does not answer", "try again")


@pytest.mark.parametrize("make", [main_app, mounted_app])
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
        (503, "unavailable", "GET", "/events", GOOD, AWAY),
    ],
)
def test_an_error_is_json(
    make: Any, status: int, code: str, method: str, path: str, headers: dict[str, str], error: Exception
) -> None:
    """With the headers that belong to it."""
    answer = ask(pages_of(error, make), method, path, headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    told = answer.json()
    assert set(told) == {"code", "message"}
    assert told["code"] == code
    assert told["message"]
    assert "broken on purpose" not in answer.text
    if status == 405:
        assert "GET" in answer.headers["allow"]
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
        assert answer.headers["upgrade"] == "websocket"
        assert answer.headers["connection"] == "Upgrade"


@pytest.mark.parametrize(
    ("status", "method", "path"),
    [(404, "GET", "/"), (405, "POST", "/metrics"), (405, "OPTIONS", "/readyz"), (500, "GET", "/readyz")],
)
def test_an_error_of_the_ops_port_is_json(status: int, method: str, path: str) -> None:
    """As on the main port."""
    connections = Connections(Hub(HubSettings(), lambda: None), lambda: 0.0)
    pages = relay_ops_app(connections, raising(FAULT), lambda: 0, raising(FAULT))
    answer = ask(pages, method, path)
    assert answer.status_code == status
    assert set(answer.json()) == {"code", "message"}
    assert ("allow" in answer.headers) == (status == 405)
