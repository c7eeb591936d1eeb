"""The dashboard with a relay that cannot hold all states: what is missing is counted, not forgotten."""

import asyncio
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from tickertape.contracts.events import Status, SystemHealth

from tests.e2e.dashboard.test_bad_relay import V1, proxied
from tests.support.clients.feed_client import status
from tests.support.servers.nats_server import NatsServer

if os.environ.get("CI") != "true":
    pytest.importorskip("playwright", reason="needs playwright; 'pip install playwright' brings it")

from playwright.async_api import expect
from websockets.asyncio.server import ServerConnection, serve

from tests.support.browser.browser_desk import run

pytestmark = pytest.mark.browser

START: list[dict[str, Any]] = [
    {
        "type": "welcome",
        "protocol": V1,
        "relay": "r",
        "session": "s",
        "heartbeat_ms": 15_000,
        "limits": {"rate": 100, "max_message_bytes": 1_048_576, "max_subjects": 64},
        "grant": {"subjects": [">"], "deny": [], "level": "DEBUG", "rate": 100},
        "expires_at": None,
    },
    {
        "type": "subscribed",
        "subjects": [">"],
        "level": "DEBUG",
        "mode": "live",
        "interval_ms": 1_000,
        "cursor": "e-9",
        "resumed": False,
    },
]


def snapshot(*gateways: str, **more: Any) -> dict[str, Any]:
    """Build a snapshot of gateways and one component."""
    events = [*map(status, gateways), SystemHealth(component="db", status=Status.HEALTHY)]
    items = [
        {"subject": event.subject, "seq": seq, "event": orjson.loads(event.encode())}
        for seq, event in enumerate(events, 1)
    ]
    return {"type": "snapshot", "events": items, "done": True, **more}


def test_missing_states_are_counted_and_kept(nats_server: NatsServer, tmp_path: Path) -> None:
    """A gateway that a truncated snapshot lacks stays on the page; a complete one without it removes it."""
    more: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

    async def truncated_relay(socket: ServerConnection) -> None:
        for first in (*START, snapshot("a", "b")):
            await socket.send(orjson.dumps(first).decode())
        while (message := await more.get()) is not None:
            await socket.send(orjson.dumps(message).decode())

    async def work() -> None:
        async with (
            proxied(nats_server, tmp_path) as (desk, proxy),
            serve(truncated_relay, "127.0.0.1", 0, subprotocols=[V1]) as server,
        ):
            try:
                proxy.routes = {"/ws": next(iter(server.sockets)).getsockname()[1]}
                await desk.page.goto(proxy.address)
                tiles = desk.page.locator("#gateway-count")
                gateways = desk.page.locator("#gateways-missing")
                components = desk.page.locator("#components-missing")
                await expect(tiles).to_have_text("2")
                await expect(gateways).to_be_hidden()
                by = {"gateway.status": 1, "system.health": 12}
                more.put_nowait(snapshot("a", truncated=13, truncated_by=by))
                await expect(gateways).to_have_text("1 state not shown")
                await expect(components).to_have_text("12 states not shown")
                await expect(tiles).to_have_text("2")
                more.put_nowait(snapshot("a"))
                await expect(tiles).to_have_text("1")
                await expect(gateways).to_be_hidden()
                await expect(components).to_be_hidden()
                assert desk.errors == []
            finally:
                more.put_nowait(None)  # ends the relay, which the server waits for

    run(work())


FILL = """async () => {
  const {Gateways} = await import("/assets/gateways.js");
  const {Components} = await import("/assets/components.js");
  const gateways = new Gateways();
  const list = document.createElement("div");
  const components = new Components(document.createElement("div"), list);
  const apply = (seq, id) => gateways.apply({subject: `gateway.status.ctp.${id}`, seq, event: {
    event_type: "gateway_status_change", gateway_id: id, gateway_type: "ctp", current_status: "HEALTHY"}}, 0);
  for (let n = 1; n <= 20_000; n++) apply(n, `g${n}`);
  apply(30_000, "g1");  // the least recently changed is now the second
  apply(30_001, "new");
  for (let n = 1; n <= 501; n++) components.apply({subject: `system.health.c${n}`, seq: n, event: {
    event_type: "system_health", component: `c${n}`, status: "HEALTHY"}}, 0);
  return [gateways.size, gateways.dropped, ["g1", "g2", "g3", "new"].filter(
    (id) => gateways.get(`gateway.status.ctp.${id}`)), list.children.length, components.dropped];
}"""


def test_states_that_the_page_keeps_are_bounded(nats_server: NatsServer, tmp_path: Path) -> None:
    """Beyond 20 000 gateways and 500 components, those that changed least recently are dropped."""

    async def work() -> None:
        async with proxied(nats_server, tmp_path) as (desk, proxy):
            await desk.page.goto(proxy.address)
            found = await desk.page.evaluate(FILL)
            assert found == [20_000, 1, ["g1", "g3", "new"], 500, 1]

    run(work())
