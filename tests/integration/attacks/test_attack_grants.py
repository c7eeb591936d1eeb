"""Attempts to see more than a grant allows: wider filters, odd spellings, history, counts.

Everything that is denied to the attacker contains the word ``HIDDEN``, in its subject or its body.
"""

import json
from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from tickertape.contracts.cursors import parse_cursor
from tickertape.contracts.messages import Events, Gap, Snapshot, Subscribed

from tests.integration.attacks.conftest import Deploy
from tests.support.clients import forge
from tests.support.clients.attacker import bearer, browser, claims, exchange, get, upgrade
from tests.support.clients.fake_link import only
from tests.support.clients.feed_client import FeedClient, follow, jetstream, line, publish, run, status
from tests.support.programs.deployment import Deployment

SECRET = forge.public_pem("HS256").decode()
ROUNDS = 40
"""Number of times that the events are published: more than the relay's memory holds, so the stream is
read.
"""

ALL_BUT: dict[str, Any] = {
    "subjects": [">"],
    "deny": ["log.*.HIDDEN", "gateway.*.*.HIDDEN", "log.critical.>", "system.>"],
}
"""A grant of everything except what is hidden."""


def token(**grant: Any) -> str:
    """Return a valid token."""
    return forge.token("HS256", claims(tickertape=grant))


@pytest.fixture(scope="module")
def prefix() -> str:
    """Return a prefix as an operator would choose it."""
    return "prod"


@pytest.fixture(scope="module")
def relay(deploy: Deploy) -> Iterator[Deployment]:
    """Run a relay with a small memory, and a stream with visible and hidden events."""
    with deploy(log_size="50", **forge.RELAY_SETTINGS) as running:
        run(stock(running))
        yield running


async def stock(relay: Deployment) -> None:
    """Publish visible events with hidden ones between them."""
    async with jetstream(relay.nats_url) as js:
        for number in range(ROUNDS):
            await publish(js, line(f"shown {number}", "INFO", "shown"), "prod.")
            await publish(js, line(f"shown {number}", "ERROR", "shown"), "prod.")
            await publish(js, line(f"HIDDEN {number}", "INFO", "HIDDEN"), "prod.")
            await publish(js, line(f"HIDDEN {number}", "CRITICAL", "shown"), "prod.")
        await publish(js, status("shown"), "prod.")
        await publish(js, status("HIDDEN"), "prod.")
        await js.publish("prod.checkpoint.host.HIDDEN", b'{"HIDDEN":1}')
        await js.publish("prod.log.info.HIDDEN", b"HIDDEN nonsense")


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a token for the honest client's only subject."""
    return token(subjects=["log.error.honest"])


def received(feed: FeedClient) -> str:
    """Return all that a client received as text, except for its grant and its own filter."""
    kinds = ("welcome", "subscribed")
    return "".join(m.model_dump_json(by_alias=True) for m in feed.messages if m.type not in kinds)


NARROWED = [
    (["log.>"], ">", ["log.>"]),
    (["log.>"], "log.info.*,gateway.>", ["log.info.*"]),
    (["log.*.a", "log.info.>"], "log.*.*", ["log.*.a", "log.info.*"]),
    (["gateway.status.ctp.*"], "*.*.*.x", ["gateway.status.ctp.x"]),
    (["log.info.a"], "log.info.a,log.info.b,>", ["log.info.a"]),
]


@pytest.mark.parametrize(("granted", "requested", "left"), NARROWED)
def test_a_broader_filter_is_cut_to_the_grant(
    relay: Deployment, granted: list[str], requested: str, left: list[str]
) -> None:
    """A wider filter is intersected with the grant, and ``subscribed`` states the result."""

    async def check() -> None:
        async with follow(relay.ws_url, token=token(subjects=granted), subjects=requested) as feed:
            assert only(feed.messages, Subscribed)[0].subjects == left
            await feed.send_message(type="subscribe", subjects=requested.split(","))
            assert (await feed.one(Subscribed)).subjects == left

    run(check())


@pytest.mark.parametrize(
    ("grant", "requested"),
    [
        ({"subjects": ["log.error.HIDDEN"], "deny": ["log.>"]}, "log.>"),
        ({"subjects": ["log.>", "log.error.HIDDEN"], "deny": ["log.*.HIDDEN"]}, "log.error.HIDDEN"),
        ({"subjects": [">"], "deny": ["log.>"]}, "log.>"),
        ({"subjects": ["log.>"]}, "gateway.>"),
        ({"subjects": ["log.info.*"]}, "log.info.a.b"),
        ({"subjects": ["log.info.a"]}, "log.info.=61"),
        ({"subjects": ["log.info.a"]}, "LOG.INFO.A"),
    ],
)
def test_a_denied_subject_is_rejected(relay: Deployment, grant: dict[str, Any], requested: str) -> None:
    """A denied subject is 403 or 4403, also within a session; ``deny`` overrides any permission."""
    shown = token(**grant)
    for path in ("/ws", "/events"):
        make = upgrade if path == "/ws" else get
        answer = exchange(relay, make(f"{path}?subjects={requested}", bearer(shown)))
        assert (answer.status, answer.code) == (403, "forbidden")
    inside = run(browser(relay, token=shown, query=f"?subjects={requested}"))
    assert (inside.kinds, inside.error, inside.close) == (["error", "bye"], "forbidden", 4403)
    more = token(**{**grant, "subjects": [*grant["subjects"], "system.health.x"]})
    message = {"type": "subscribe", "subjects": [requested]}
    later = run(browser(relay, message, token=more, query="?subjects=system.health.x"))
    assert (later.error, later.close) == ("forbidden", 4403)


SPELLINGS = [
    ">", "log.>", "log.*.*", "log.info.HIDDEN,log.*.shown", "log%2einfo%2eHIDDEN,%3E", "%3E", "%3e",
    "%2A.%2A.%2A", "log%2E*%2E*,log%2Ecritical%2E%3E,log.info.shown", "%253E,log.*.*",
    "log%252einfo%252eHIDDEN,>", "log.info.H%49DDEN,log.info.*", "log.info.=48IDDEN,log.*.*",
    "log.info.*,log.info.HIDDEN",
]  # fmt: skip


@pytest.mark.parametrize("requested", SPELLINGS)
@pytest.mark.parametrize("mode", ["live", "complete", "latest"])
def test_no_spelling_shows_what_is_hidden(relay: Deployment, requested: str, mode: str) -> None:
    """No spelling reveals hidden events in history, snapshots or counts."""

    async def check() -> None:
        address = f"{relay.ws_url}?mode={mode}&since=earliest&subjects={requested}"
        async with jetstream(relay.nats_url) as js, follow(address, token=token(**ALL_BUT)) as feed:
            await publish(js, line("HIDDEN now", "INFO", "HIDDEN"), "prod.")
            await publish(js, line("HIDDEN now", "CRITICAL", "shown"), "prod.")
            last = await publish(js, line("shown now", "INFO", "shown"), "prod.")
            await feed.until(lambda: last in feed.seqs())
            assert "HIDDEN" not in received(feed)
            assert "log.critical" not in received(feed)

    run(check())


def shown_only(relay: Deployment, query: str) -> dict[str, Any]:
    """Return a page of history, and check that nothing hidden is in it."""
    answer = exchange(relay, get(f"/events?{query}", bearer(token(**ALL_BUT))))
    assert answer.status == 200
    assert b"HIDDEN" not in answer.body
    page: dict[str, Any] = json.loads(answer.body)
    for item in page["events"]:
        assert item["subject"].startswith(
            ("log.info.", "log.warn.", "log.error.", "gateway.status.ctp.shown")
        )
    return page


def test_history_shows_what_the_feed_would(relay: Deployment) -> None:
    """No combination of order, limit, start and end shows a hidden event, from memory or from the stream."""
    epoch, head, _ = parse_cursor(shown_only(relay, "order=newest&limit=1")["cursor"])
    for order, limit, position in product(
        ("oldest", "newest"), (1, 2, 1000), (0, 1, 2, 3, 50, 51, head - 1, head)
    ):
        here, there = f"{epoch}-{position}", f"{epoch}-{position + 3}"
        for bounds in (f"until={here}", f"cursor={here}", f"cursor={here}&until={there}"):
            shown_only(relay, f"{bounds}&order={order}&limit={limit}")
    complete = shown_only(relay, "limit=1000&subjects=log.*.shown")["events"]
    stocked = [one for one in complete if one["event"]["message"] not in ("shown now", "lesser")]
    assert len(stocked) == 2 * ROUNDS
    for requested in SPELLINGS:
        shown_only(relay, f"limit=1000&subjects={requested}")


def test_a_cursor_of_a_wider_token_shows_no_more(relay: Deployment) -> None:
    """A cursor obtained with a wider token gives no more than the current token grants."""

    async def check() -> None:
        wide = token(subjects=[">"])
        async with follow(relay.ws_url, token=wide, since="earliest", mode="complete") as feed:
            await feed.until(lambda: "HIDDEN" in received(feed))
        start = only(feed.messages, Subscribed)[0].cursor
        for mode in ("live", "complete", "latest"):
            async with follow(relay.ws_url, token=token(**ALL_BUT), cursor=start, mode=mode) as narrow:
                await narrow.one(Events)
                await narrow.send_message(type="subscribe", cursor=start, mode=mode)
                await narrow.one(Subscribed)
                narrow.reset()  # ``subscribe`` goes back to the cursor
                await narrow.one(Events)
                assert "shown" in received(narrow)
                assert "HIDDEN" not in received(narrow)

    run(check())


def test_what_is_passed_over_is_counted_among_the_granted(relay: Deployment) -> None:
    """``gap.by`` and ``conflated`` count no event that the client may not see."""

    async def check() -> None:
        grant = token(**ALL_BUT, rate=2)
        requested = "log.*.flood,log.critical.*,log.*.HIDDEN"
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, token=grant, subjects=requested) as feed,
            follow(relay.ws_url, token=grant, subjects=requested, mode="latest", interval_ms=200) as latest,
        ):
            for _ in range(10):
                for level in ("INFO", "ERROR", "CRITICAL"):
                    await publish(js, line("flood", level, "flood"), "prod.")
                    await publish(js, line("flood", level, "HIDDEN"), "prod.")
            last = await publish(js, line("last", "ERROR", "flood"), "prod.")
            for client in (feed, latest):
                while True:
                    gaps = only(client.messages, Gap)
                    counted = sum(gap.dropped or 0 for gap in gaps)
                    counted += sum(message.conflated or 0 for message in only(client.messages, Events))
                    if counted + len(client.seqs()) >= 21:
                        break
                    await client.read()
                assert counted + len(client.seqs()) == 21
                assert set().union(*(gap.by for gap in gaps)) <= {"log.info", "log.error"}
                assert "HIDDEN" not in received(client)
                assert max(client.seqs()) <= last

    run(check())


def test_a_snapshot_shows_granted_gateways_only(relay: Deployment) -> None:
    """Snapshots contain granted gateways only: initially, after ``subscribe``, and in mode latest."""

    async def check() -> None:
        for mode in ("live", "complete", "latest"):
            async with follow(relay.ws_url, token=token(**ALL_BUT), mode=mode) as feed:
                await feed.send_message(type="subscribe", subjects=["gateway.status.ctp.*"], mode=mode)
                await feed.one(Snapshot)
                for snapshot in only(feed.messages, Snapshot):
                    assert [item.event["gateway_id"] for item in snapshot.events] == ["shown"]

    run(check())


def test_the_level_of_a_grant_is_the_least(relay: Deployment) -> None:
    """The level of a grant is the minimum for any request; subjects without a level are not affected."""
    shown = token(subjects=["log.>", "gateway.>"], level="ERROR", deny=["log.*.HIDDEN", "gateway.*.*.HIDDEN"])

    async def check() -> None:
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, token=shown, level="DEBUG", since="earliest") as feed,
        ):
            assert only(feed.messages, Subscribed)[0].level == "ERROR"
            await publish(js, line("lesser", "WARN", "shown"), "prod.")
            last = await publish(js, line("HIDDEN", "CRITICAL", "shown"), "prod.")
            await feed.until(lambda: last in feed.seqs())
            subjects = {item.subject for message in only(feed.messages, Events) for item in message.events}
            assert {subject.split(".")[1] for subject in subjects} <= {"error", "critical", "status"}

    run(check())
    page = json.loads(exchange(relay, get("/events?level=DEBUG&limit=1000", bearer(shown))).body)
    assert {item["subject"].split(".")[1] for item in page["events"]} <= {"error", "critical", "status"}
