"""The endpoints about gateways: pages, access, and bad input."""

import asyncio
import time
from typing import Any, Final, cast

import httpx
import orjson
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from tickertape.contracts.close_codes import ErrorCode
from tickertape.contracts.events import GatewayRecovery, GatewayStatusChange, Status, format_time
from tickertape.contracts.gateway_pages import (
    GatewayHistoryPage,
    GatewaysPage,
    IncidentsPage,
    Page,
    StatePage,
)
from tickertape.contracts.messages import ProtocolError
from tickertape.relay.auth.origins import Origins
from tickertape.relay.auth.request_auth import RequestAuth
from tickertape.relay.core.connection_limits import Admission, Limits
from tickertape.relay.core.grants import Grant
from tickertape.relay.core.hub import Hub, HubSettings
from tickertape.relay.core.timeline import timelines
from tickertape.relay.endpoints import page_turns
from tickertape.relay.endpoints.gateway_pages import GatewayPages
from tickertape.relay.endpoints.gateway_queries import LISTING_KEYS, parse_query
from tickertape.relay.endpoints.history import History
from tickertape.relay.endpoints.page_turns import PageTurns
from tickertape.relay.endpoints.routes import main_app, mounted_app
from tickertape.relay.ingest.gateway_history import GatewayHistory
from tickertape.relay.ingest.replay_readers import ReplayReaders
from tickertape.relay.transport.connections import Connections

from tickertape.names import Names

NOW: Final = 1_800_000_000
HOUR: Final = 3600

GRANTS: Final = {
    "all": Grant(),
    "ctp": Grant(subjects=("gateway.status.ctp.>",)),
    "not-b": Grant(subjects=("gateway.>",), deny=("gateway.*.ctp.b",)),
    "logs": Grant(subjects=("log.>",)),
}


class Desk:
    """Endpoints of a relay with some gateways, at a fixed time."""

    def __init__(self) -> None:
        hub = Hub(HubSettings(), lambda: None)
        self.history = GatewayHistory(hub, Names(), (">",))
        self.history.loaded = True
        connections = Connections(
            hub, lambda: float(NOW), RequestAuth(self.verify, Origins()), Admission(Limits())
        )
        events = History(hub, cast(ReplayReaders, None))
        self.apps: list[ASGIApp] = [
            main_app(connections, events, self.history),
            mounted_app(connections, events, self.history),
        ]

    @staticmethod
    def verify(token: str) -> Grant:
        """Return the grant that a token names."""
        if token not in GRANTS:
            raise ProtocolError(ErrorCode.UNAUTHORIZED, "bad token")
        return GRANTS[token]

    def add(
        self, hours_ago: float, status: Status, gateway: str = "a", kind: str = "ctp", **metadata: Any
    ) -> None:
        """Add a status."""
        event = GatewayStatusChange(
            timestamp=ago(hours_ago),
            gateway_id=gateway,
            gateway_type=kind,
            previous_status=Status.UNKNOWN,
            current_status=status,
            metadata=metadata,
        )
        self.history.take(event.subject, event.encode())

    def recover(self, hours_ago: float, phase: Any, attempt: int, gateway: str = "a") -> None:
        """Add a step of a recovery."""
        event = GatewayRecovery(
            timestamp=ago(hours_ago), gateway_id=gateway, gateway_type="ctp", phase=phase, attempt=attempt
        )
        self.history.take(event.subject, event.encode())

    def fetch(self, path: str, token: str | None = "all", app: int = 0) -> httpx.Response:
        """Request a page."""

        async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
            await self.apps[app]({**scope, "state": {}}, receive, send)

        async def send_request() -> httpx.Response:
            transport = httpx.ASGITransport(app=with_state)
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
                return await client.get(path, headers=headers)

        return asyncio.run(send_request())

    def get(self, path: str, token: str = "all") -> Any:
        """Return the body of a page."""
        response = self.fetch(path, token)
        assert response.status_code == 200, response.text
        return response.json()


def ago(hours: float) -> str:
    """Return a time before now."""
    return format_time(NOW - hours * HOUR)


@pytest.fixture
def desk() -> Desk:
    """Return three gateways: one that failed and recovered, one that is down, and one of another type."""
    desk = Desk()
    desk.add(100, Status.HEALTHY)
    desk.add(10, Status.UNHEALTHY, error="refused", probe="tcp")
    desk.recover(9.9, "attempt", 1)
    desk.recover(9, "attempt", 2)
    desk.add(8, Status.HEALTHY)
    desk.recover(8, "succeeded", 2)
    desk.add(50, Status.HEALTHY, "b")
    desk.add(2, Status.UNHEALTHY, "b", error="timeout")
    desk.add(3, Status.OFF_SESSION, "x/1", "ib.eu", reason="session_closed")
    return desk


def test_gateways_are_listed_with_their_availability(desk: Desk) -> None:
    """Each gateway has its status and its availability over four ranges, planned time separate."""
    page = desk.get("/gateways")
    first, second, third = page["gateways"]
    assert page["more"] is False
    assert [(one["gateway_id"], one["status"]) for one in page["gateways"]] == [
        ("a", "HEALTHY"),
        ("b", "UNHEALTHY"),
        ("x/1", "OFF_SESSION"),
    ]
    assert list(first["availability"]) == ["24h", "7d", "30d", "90d"]
    assert first["availability"]["24h"] == {
        "availability": round(22 / 24, 6),
        "up_s": 22 * HOUR,
        "down_s": 2 * HOUR,
        "planned_s": 0,
        "unknown_s": 0,
        "incidents": 1,
    }
    assert first["availability"]["7d"]["unknown_s"] == 68 * HOUR
    assert first["since"] == ago(8)
    assert (second["error"], second["since"]) == ("timeout", ago(2))
    assert (third["reason"], third["availability"]["24h"]["planned_s"]) == ("session_closed", 3 * HOUR)
    assert third["availability"]["24h"]["availability"] is None
    [measured] = desk.get("/gateways?since=9h&until=7h&subjects=gateway.status.ctp.a")["gateways"]
    assert measured["availability"]["range"]["availability"] == 0.5


def test_a_list_is_paged(desk: Desk) -> None:
    """A page names the position of the next one, also for ids with special characters."""
    seen, query = [], "limit=1"
    for _ in range(3):
        page = desk.get(f"/gateways?{query}")
        seen += [one["gateway_id"] for one in page["gateways"]]
        query = f"limit=1&after={page.get('next')}"
    assert seen == ["a", "b", "x/1"]
    assert "next" not in page
    assert desk.get("/state?after=ctp.b")["gateways"][0]["gateway_type"] == "ib.eu"


def test_a_removed_gateway_is_listed_while_a_range_has_it(desk: Desk) -> None:
    """A gateway that is no longer monitored counts in ranges in which it was."""
    desk.add(1, Status.REMOVED)
    assert desk.get("/gateways")["gateways"][0]["status"] == "REMOVED"
    assert [one["gateway_id"] for one in desk.get("/gateways?since=30m")["gateways"]] == ["b", "x/1"]
    assert [one["gateway_id"] for one in desk.get("/state")["gateways"]] == ["b", "x/1"]


def test_statuses_of_a_gateway(desk: Desk) -> None:
    """The statuses of a range include the one at its beginning; recoveries are separate."""
    page = desk.get("/gateways/ctp/a/history?since=9h")
    assert page["statuses"] == [
        {"timestamp": ago(10), "status": "UNHEALTHY", "error": "refused"},
        {"timestamp": ago(8), "status": "HEALTHY"},
    ]
    assert [(one["phase"], one["attempt"]) for one in page["recoveries"]] == [
        ("attempt", 2),
        ("succeeded", 2),
    ]
    assert page["availability"]["range"]["down_s"] == HOUR
    newest = desk.get("/gateways/ctp/a/history?limit=1&order=newest")
    assert ([one["timestamp"] for one in newest["statuses"]], newest["more"]) == ([ago(8)], True)
    for path in ("/gateways/ib.eu/x%2F1/history", "/gateways/ib=2Eeu/x=2F1/history"):
        assert desk.get(path)["gateway_id"] == "x/1"
    assert desk.get("/gateways/ctp/a/history?since=99999999d")["since"].startswith("0001-")


def test_incidents_have_their_error_and_recovery(desk: Desk) -> None:
    """Incidents are listed newest first; one that continues has no end."""
    page = desk.get("/incidents")
    assert page["count"] == 2
    open_one, ended = page["incidents"]
    assert (open_one["gateway_id"], open_one["end"], open_one["duration_s"]) == ("b", None, 2 * HOUR)
    assert ended == {
        "gateway_type": "ctp",
        "gateway_id": "a",
        "start": ago(10),
        "end": ago(8),
        "duration_s": 2 * HOUR,
        "down_s": 2 * HOUR,
        "planned_s": 0,
        "planned": False,
        "error": "refused",
        "recovery": {"phase": "succeeded", "attempts": 2},
    }
    limited = desk.get("/incidents?limit=1")
    assert (limited["count"], limited["more"], len(limited["incidents"])) == (2, True, 1)
    assert limited["incidents"][0]["gateway_id"] == "b"
    assert desk.get("/incidents?since=7h")["count"] == 1


def test_a_silenced_failure_is_planned(desk: Desk) -> None:
    """Pages show who silenced a gateway and why, and its failure is planned until the silence ends."""
    silenced = {"until": ago(-1), "reason": "moving", "by": "alice"}
    desk.add(5, Status.UNHEALTHY, "c", silenced=silenced, error="refused")
    *_, gateway = desk.get("/gateways?subjects=gateway.status.*.c")["gateways"]
    assert gateway["silenced"] == silenced
    assert gateway["availability"]["24h"]["planned_s"] == 5 * HOUR
    [incident] = desk.get("/incidents?subjects=gateway.status.*.c")["incidents"]
    assert (incident["planned"], incident["planned_s"], incident["down_s"]) == (True, 5 * HOUR, 0)


def test_recoveries_belong_to_one_incident(desk: Desk) -> None:
    """A step shortly after an incident belongs to it, unless the next one has begun by then."""
    second = 1 / HOUR
    for start, attempt in ((6.0, 1), (6.0 - 3 * second, 7)):
        desk.add(start, Status.UNHEALTHY, "c")
        desk.recover(start, "attempt", attempt, "c")
        desk.add(start - second, Status.HEALTHY, "c")
        desk.recover(start - 2 * second, "succeeded", attempt, "c")
    incidents = desk.get("/incidents?subjects=gateway.status.*.c")["incidents"]
    assert [one["recovery"] for one in incidents] == [
        {"phase": "succeeded", "attempts": attempt} for attempt in (7, 1)
    ]


def test_a_page_says_that_older_statuses_were_dropped(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway with too many statuses loses its oldest; pages of a range that lacks some say so."""
    monkeypatch.setattr(timelines, "MAX_TIMELINE", 16)
    for number in range(40):
        desk.add(20 - number / 8, list(Status)[number % 2], "busy")

    def truncated(path: str, *keys: Any) -> Any:
        found = desk.get(path)
        for key in keys:
            found = found[key]
        return found["truncated"]

    query = "?subjects=gateway.status.ctp.busy"
    for path, keys in (
        (f"/gateways{query}&since=", ("gateways", 0)),
        (f"/incidents{query}&since=", ()),
        ("/gateways/ctp/busy/history?since=", ()),
        (f"/state{query}&at=", ()),
    ):
        assert [truncated(path + time, *keys) for time in ("19h", "16h")] == [True, False]
    for path in ("/incidents?subjects=gateway.status.ctp.a", "/gateways/ctp/a/history"):
        assert not truncated(path)
    assert desk.get(f"/gateways{query}&since=19h")["gateways"][0]["availability"]["range"]["unknown_s"] > 0


def test_the_state_at_a_time(desk: Desk) -> None:
    """The state at a time is that of the newest statuses before it."""
    page = desk.get(f"/state?at={ago(9)}")
    assert page["at"] == ago(9)
    assert [(one["gateway_id"], one["status"]) for one in page["gateways"]] == [
        ("a", "UNHEALTHY"),
        ("b", "HEALTHY"),
    ]
    assert desk.get("/state?at=9h") == page
    assert desk.get("/state?at=2020-01-01T00:00:00Z")["gateways"] == []


@pytest.mark.parametrize(("token", "visible"), [("all", 3), ("ctp", 2), ("not-b", 2)])
def test_hidden_gateways_are_neither_listed_nor_counted(desk: Desk, token: str, visible: int) -> None:
    """A client learns nothing about gateways whose status it may not receive."""
    assert len(desk.get("/gateways", token)["gateways"]) == visible
    assert len(desk.get("/state", token)["gateways"]) == visible
    assert desk.get("/incidents", token)["count"] == (1 if token == "not-b" else 2)
    hidden = "ctp/b" if token == "not-b" else "ib.eu/x%2F1"
    if token != "all":
        response, unknown = (desk.fetch(f"/gateways/{one}/history", token) for one in (hidden, "ctp/zzz"))
        assert (response.status_code, unknown.status_code) == (404, 404)
        assert response.json()["code"] == unknown.json()["code"]
        assert response.json()["message"].startswith("no gateway ")
    assert ("recovery" in desk.get("/incidents", token)["incidents"][-1]) is (token != "ctp")


@pytest.mark.parametrize("path", ["/gateways", "/incidents", "/state", "/gateways/ctp/a/history"])
@pytest.mark.parametrize("app", [0, 1], ids=["main", "mounted"])
def test_access_is_that_of_events(desk: Desk, path: str, app: int) -> None:
    """No token, a bad one, or one without gateways is rejected as by ``/events``."""
    assert [desk.fetch(path, token, app).status_code for token in (None, "bad", "logs", "all")] == [
        401,
        401,
        403,
        200,
    ]
    desk.history.loaded = False
    response = desk.fetch(path, "all", app)
    assert (response.status_code, response.json()["code"]) == (503, "unavailable")
    assert "being loaded" in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/gateways?since=yesterday", "duration"),
        ("/gateways?since=2026-01-01", "RFC 3339"),
        ("/incidents?until=-5d", "duration"),
        ("/state?at=2026-02-30T00:00:00Z", "RFC 3339"),
        ("/state?since=5d", "unknown query parameter"),
        ("/incidents?limit=0", "1..1000"),
        ("/gateways?limit=1001", "1..1000"),
        ("/gateways?after=x", "position"),
        ("/gateways?after=a.b.c", "position"),
        ("/gateways?subjects=a..b", "token"),
        ("/gateways/ctp/a/history?order=up", "oldest"),
        ("/gateways?token=x", "Authorization"),
    ],
)
def test_bad_queries_are_explained(desk: Desk, path: str, word: str) -> None:
    """A query that cannot be answered is rejected with what is wrong."""
    response = desk.fetch(path)
    assert response.status_code == 400
    assert word in response.json()["message"]


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/gateways", GatewaysPage),
        ("/gateways?since=9h&limit=1", GatewaysPage),
        ("/gateways/ctp/a/history", GatewayHistoryPage),
        ("/gateways/ctp/c/history", GatewayHistoryPage),
        ("/incidents", IncidentsPage),
        ("/state?limit=1", StatePage),
        ("/state?at=9h", StatePage),
    ],
)
@pytest.mark.parametrize("token", ["all", "ctp"])
def test_pages_are_those_of_the_contract(desk: Desk, path: str, model: type[Page], token: str) -> None:
    """Each page has all fields that the contract requires, and no others."""
    silenced = {"until": ago(-1), "reason": "moving", "by": "alice"}
    desk.add(5, Status.UNHEALTHY, "c", silenced=silenced, reason="closed")
    page = desk.get(path, token)
    parsed = model.model_validate_json(orjson.dumps(page))
    assert parsed.model_dump(mode="json", exclude_unset=True) == page


def test_a_range_that_ends_before_it_begins_is_empty(desk: Desk) -> None:
    """Times in the future, and a range whose end is before its start, select nothing."""
    page = desk.get("/gateways?since=1h&until=2h")
    assert {one["availability"]["range"]["availability"] for one in page["gateways"]} == {None}
    assert page["since"] == page["until"]
    assert desk.get("/state?at=9999-12-31T23:59:59Z")["at"] == ago(0)


def test_a_page_lets_other_tasks_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """While many timelines are read, the event loop serves others between them."""
    monkeypatch.setattr(page_turns, "MAX_SECONDS", 0.0)
    desk = Desk()
    for number in range(40):
        for hour in range(200):
            desk.add(hour, list(Status)[(number + hour) % 6], f"g{number}")
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read() -> None:
        counting = asyncio.create_task(count_turns())
        pages = GatewayPages(desk.history, time.time)
        async with PageTurns().take("a client") as turn:
            await pages.listing(parse_query("", LISTING_KEYS).authorize(Grant()), turn)
        counting.cancel()

    asyncio.run(read())
    assert turns >= 1


def test_the_status_counts_what_is_in_memory(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gateways, entries, truncated gateways and bytes are counted; so is nothing of a removed entry."""
    monkeypatch.setattr(timelines, "MAX_TIMELINE", 16)
    before = desk.history.status()
    assert (before.loaded, before.problem, before.gateways, before.truncated) == (True, "", 3, 0)
    assert (before.entries, before.bytes > 13 * before.entries) == (9, True)
    for number in range(100):
        desk.add(20 - number / 8, list(Status)[number % 2], "busy")
    after = desk.history.status()
    assert (after.gateways, after.truncated) == (4, 1)
    assert 9 < after.entries <= 9 + 16
