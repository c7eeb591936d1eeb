"""``/gateways/{type}/{id}/silence``: who may silence what, and bad input."""

import asyncio
from typing import Any, Final, cast

import httpx
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tickertape.contracts.audit import Silenced
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import GatewayStatusChange, Status, format_time
from tickertape.contracts.gateway_pages import SilenceResult
from tickertape.contracts.messages import ProtocolError
from tickertape.contracts.silences import encode_silence, silence_subject
from tickertape.producers.monitor.coordination import silences
from tickertape.producers.monitor.gateway.model import Silence
from tickertape.relay.audit import audit_log
from tickertape.relay.audit.audit_log import AuditLog
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.core.grants import Grant, parse_grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.routes import main_app, mounted_app
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.settings import RelaySettings
from tickertape.relay.transport.connections import Connections
from tickertape.relay.transport.http.request_head import HeadError, check_head

from tickertape.names import Names
from tickertape.nats.streams import StreamsError

NOW: Final = 1_800_000_000.0
GRANTS: Final = {
    "alice": Grant(subject="alice", control=True),
    "odd": Grant(subject="al\x1bice", control=True),
    "reader": Grant(subject="reader"),
    "ib": Grant(subject="ib", subjects=("gateway.*.ib.>",), control=True),
}
PATH: Final = "/gateways/ctp/a/silence"


class StoredSilences(GatewayHistory):
    """History of gateways that keeps silences instead of publishing them."""

    stored: list[tuple[str, bytes]]
    error: Exception | None = None

    async def silence(self, gateway: Any, until: float, reason: str, by: str) -> None:
        """Keep a silence."""
        if self.error is not None:
            raise self.error
        self.stored.append((silence_subject(*gateway), encode_silence(until, reason, by)))


class Desk:
    """Relay with one gateway, mounted or with ports of its own."""

    def __init__(self, *, control: bool = True, tokens: bool = True, mounted: bool = False) -> None:
        hub = Hub(HubSettings(), lambda: None)
        self.history = StoredSilences(hub, Names(), (">",), control=control)
        self.history.stored = []
        self.history.loaded = True
        self.add("a")
        auth = RequestAuth(self.verify if tokens else None, Origins("https://app.example.com"))
        self.connections = Connections(hub, lambda: NOW, auth, Admission(Limits()))
        events = History(hub, cast(ReplayReaders, None))
        make = mounted_app if mounted else main_app
        self.app: ASGIApp = make(self.connections, events, self.history)

    def add(self, gateway: str) -> None:
        """Add a gateway."""
        event = GatewayStatusChange(
            gateway_id=gateway,
            gateway_type="ctp",
            previous_status=Status.UNKNOWN,
            current_status=Status.UNHEALTHY,
        )
        self.history.take(event.subject, event.encode())

    @staticmethod
    def verify(token: str) -> Grant:
        """Return the grant that a token names."""
        if token not in GRANTS:
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "bad token")
        return GRANTS[token]

    def send(
        self,
        method: str = "POST",
        query: str = "?reason=moving",
        token: str | None = "alice",
        path: str = PATH,
        **headers: str,
    ) -> httpx.Response:
        """Send a request."""

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await self.app({**scope, "state": {}}, receive, send)

        async def send_request() -> httpx.Response:
            transport = httpx.ASGITransport(app=with_state)
            own = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.request(method, path + query, headers={**own, **headers})

        return asyncio.run(send_request())


@pytest.mark.parametrize("mounted", [False, True])
def test_a_silence_has_who_and_why(mounted: bool) -> None:
    """A silence is stored as the monitors read it, with the subject of the token."""
    desk = Desk(mounted=mounted)
    response = desk.send(query="?for=2h&reason=moving%20racks")
    body = {"gateway_type": "ctp", "gateway_id": "a", "reason": "moving racks", "by": "alice"}
    assert (response.status_code, response.json()) == (200, {**body, "until": format_time(NOW + 7200)})
    assert SilenceResult.model_validate_json(response.content).model_dump() == response.json()
    assert desk.send("DELETE", "").json()["until"] == format_time(NOW)
    (subject, started), (_, ended) = desk.history.stored
    assert subject == "watchdog.silenced.ctp.a"
    assert silences.decode(started) == Silence(NOW + 7200, "moving racks", "alice")
    decoded = silences.decode(ended)
    assert decoded is not None
    assert decoded.until <= NOW


@pytest.mark.parametrize(
    ("token", "status"), [(None, 401), ("bad", 401), ("reader", 403), ("ib", 404), ("alice", 200)]
)
def test_only_control_of_the_gateway_may_silence_it(token: str | None, status: int) -> None:
    """A token needs the right, and to see the gateway; otherwise nothing is stored."""
    desk = Desk()
    for method, query in (("POST", "?reason=x"), ("DELETE", "")):
        assert desk.send(method, query, token).status_code == status
    assert bool(desk.history.stored) is (status == 200)


def test_only_a_header_authenticates() -> None:
    """Neither a relay without tokens, nor another scheme, nor a subprotocol may silence."""
    assert Desk(tokens=False).send(token=None).status_code == 401
    desk = Desk()
    assert desk.send(token=None, Authorization="Basic YWxpY2U6YQ==").status_code == 401
    protocols = {"Sec-WebSocket-Protocol": "tickertape.v1, bearer.alice"}
    assert desk.send(token=None, **protocols).status_code == 401
    assert desk.send(query="?reason=x&token=alice", token=None).status_code == 401
    assert desk.send(Origin="https://evil.example.com").status_code == 403
    assert desk.history.stored == []
    assert desk.send(Origin="https://app.example.com").status_code == 200
    preflight = desk.send("OPTIONS", "", None, Origin="https://app.example.com")
    assert preflight.headers["access-control-allow-methods"] == "POST, DELETE"


def test_without_control_there_is_no_such_resource() -> None:
    """A relay without ``--control`` silences nothing, whatever the token grants."""
    desk = Desk(control=False)
    assert [desk.send(method, "").status_code for method in ("POST", "DELETE", "GET")] == [404, 404, 404]


@pytest.mark.parametrize(
    ("method", "query", "word"),
    [
        ("POST", "", "reason"),
        ("POST", "?reason=%20", "reason"),
        ("POST", f"?reason={'x' * 501}", "reason"),
        ("POST", "?reason=a%0Ab", r"'\n'"),
        ("POST", "?reason=a%1B[2J", r"'\x1b'"),
        ("POST", "?reason=a%E2%80%AEb", r"'\u202e'"),
        ("POST", "?reason=x&for=soon", "duration"),
        ("POST", "?reason=x&for=0s", "duration"),
        ("POST", "?reason=x&for=31d", "30d"),
        ("POST", "?reason=x&until=2h", "unknown query parameter"),
        ("DELETE", "?for=2h", "unknown query parameter"),
    ],
)
def test_bad_queries_are_explained(method: str, query: str, word: str) -> None:
    """An invalid query stores nothing."""
    desk = Desk()
    response = desk.send(method, query)
    assert response.status_code == 400
    assert word in response.json()["message"]
    assert desk.history.stored == []


def test_an_unknown_gateway_and_an_outage_are_errors() -> None:
    """A gateway that does not exist is not silenced, and NATS may be unreachable."""
    desk = Desk()
    assert desk.send(path="/gateways/ctp/zzz/silence").status_code == 404
    desk.history.error = StreamsError("NATS is unreachable", "retry later")
    response = desk.send()
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "the silence is not stored" in response.json()["message"]
    desk.history.error = TimeoutError()
    response = desk.send()
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "may still take effect" in response.json()["message"]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_until_the_history_is_loaded_no_gateway_is_known(method: str) -> None:
    """The answer is the same for gateways that exist, that do not, and that the token may not see."""
    desk = Desk()
    desk.history.loaded = False
    query = "?reason=x" if method == "POST" else ""
    responses = [
        desk.send(method, query, token, path=f"/gateways/{gateway}/silence")
        for token in ("alice", "ib")
        for gateway in ("ctp/a", "ctp/zzz", "ib/a")
    ]
    assert {response.status_code for response in responses} == {503}
    assert len({response.text for response in responses}) == 1
    assert desk.send(method, query, "reader").status_code == 403
    assert desk.history.stored == []


@pytest.mark.parametrize("ids", [["a/b", "a=2Fb"], ["a=2Fb", "a/b"], ["a/b"], ["a=2Fb"]])
def test_a_path_means_the_same_gateway_whichever_exist(ids: list[str]) -> None:
    """A segment that is a token stands for what it encodes, and never for a gateway of that name."""
    desk = Desk()
    for gateway in ids:
        desk.add(gateway)
    for gateway, paths in {"a/b": ["a%2Fb", "a=2Fb"], "a=2Fb": ["a=3D2Fb", "a%3D3D2Fb"]}.items():
        for path in paths:
            response = desk.send(path=f"/gateways/ctp/{path}/silence")
            assert response.status_code == (200 if gateway in ids else 404)
            assert response.json().get("gateway_id", gateway) == gateway
    desk.add("a=b")  # is not a token
    assert desk.send(path="/gateways/ctp/a=b/silence").json()["gateway_id"] == "a=b"


def test_attempts_are_recorded() -> None:
    """With an audit log, a silence has a record, and a rejection is counted."""
    desk = Desk()
    audit = AuditLog(Names(), "relay", lambda: NOW, lambda now: now)
    desk.connections.audit = audit
    assert desk.send().status_code == 200
    [record] = audit.queued()
    assert record.subject == "audit.silenced.relay"
    assert Silenced.model_validate_json(record.data).by == "alice"


def test_what_cannot_be_recorded_is_not_silenced(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full audit log, a silence is an error and is not published."""
    desk = Desk()
    monkeypatch.setattr(audit_log, "MAX_QUEUED_BYTES", 100)
    desk.connections.audit = AuditLog(Names(), "relay", lambda: NOW, lambda now: now)
    for method, query in (("POST", "?reason=x"), ("DELETE", "")):
        response = desk.send(method, query)
        assert (response.status_code, response.json()["code"]) == (503, "unavailable")
        assert "audit log" in response.json()["message"]
    assert desk.history.stored == []
    assert desk.connections.audit.lost == 2


def test_names_and_reasons_are_printable_at_every_door() -> None:
    """The name in a token, and a message of another client in NATS, may contain anything."""
    desk = Desk()
    assert desk.send(token="odd").json()["by"] == r"al\x1bice"
    decoded = silences.decode(encode_silence(NOW, "a\nb", "c\u202e"))
    assert decoded == Silence(NOW, r"a\nb", r"c\u202e")


def test_heads_allow_the_methods_on_silences_only() -> None:
    """No other path accepts a method that changes something, and none accepts a body."""
    host = [(b"host", b"x")]
    for path in (b"/gateways/ctp/a/silence", b"/feed/gateways/ctp/a/silence?reason=x"):
        for method in (b"POST", b"DELETE"):
            assert check_head("1.1", method, path, [*host, (b"content-length", b"0")]) == path
        with pytest.raises(HeadError, match="bodies"):
            check_head("1.1", b"POST", path, [*host, (b"content-length", b"5")])
        with pytest.raises(HeadError, match="method"):
            check_head("1.1", b"PUT", path, host)
    for path in (b"/events", b"/events?x=/silence", b"/silences", b"*"):
        with pytest.raises(HeadError, match="method"):
            check_head("1.1", b"POST", path, host)


def test_a_grant_states_control() -> None:
    """Control is false unless a grant states it, and anything but a boolean is rejected."""
    assert not parse_grant({"subjects": [">"]}, "grant").control
    assert parse_grant({"subjects": [">"], "control": True}, "grant").control
    for value in ("true", 1, None):
        with pytest.raises(ProtocolError, match="control"):
            parse_grant({"subjects": [">"], "control": value}, "grant")
    assert not Grant().control


def test_control_needs_tokens() -> None:
    """Without tokens, no client could be given the right, so the setting is an error."""
    problem = RelaySettings(control=True, auth="none").problem()
    assert problem is not None
    assert "control" in str(problem)
