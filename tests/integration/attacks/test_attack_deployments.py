"""Two deployments on one NATS server, and internal subjects: no grant and no filter reaches them."""

import json
from collections.abc import Iterator

import pytest
from tickertape.contracts.messages import Snapshot

from tests.support.clients import forge
from tests.support.clients.attacker import bearer, claims, exchange, get
from tests.support.clients.feed_client import follow, jetstream, line, publish, run, status
from tests.support.programs.relay_process import Relay
from tests.support.servers.nats_server import NatsServer


def token(subjects: str) -> str:
    """Return a token that is valid for both relays: sharing a key gives no access to the other deployment."""
    return forge.token("HS256", claims(tickertape={"subjects": [subjects]}))


def started(nats: NatsServer, prefix: str) -> Relay:
    """Run the relay of a deployment."""
    env = {
        "TICKERTAPE_JWT_ALGORITHM": "HS256",
        "TICKERTAPE_JWT_KEY": forge.public_pem("HS256").decode(),
        "TICKERTAPE_SUBJECT_PREFIX": prefix,
    }
    return Relay(nats.url, "--auth", "jwt", **env)


@pytest.fixture(scope="module")
def prefix() -> str:
    """Return the prefix of the attacked deployment."""
    return "here"


@pytest.fixture(scope="module")
def relay(nats: NatsServer, prefix: str) -> Iterator[Relay]:
    """Run its relay."""
    with started(nats, prefix) as running:
        yield running


@pytest.fixture(scope="module")
def honest_token() -> str:
    """Return a token for its only subject."""
    return token("log.error.honest")


@pytest.fixture(scope="module", autouse=True)
def staging(nats: NatsServer, relay: Relay) -> Iterator[Relay]:
    """Run the other deployment, whose own clients receive its events; both have internal messages."""

    async def check(running: Relay) -> None:
        async with jetstream(nats.url) as js, follow(running.ws_url, token=token(">")) as feed:
            await publish(js, status("HIDDEN"), "staging.")
            seq = await publish(js, line("HIDDEN of staging", "INFO", "x"), "staging.")
            await feed.until(lambda: seq in feed.seqs())
            await js.publish("here.checkpoint.host.HIDDEN", b'{"HIDDEN":1}')
            await js.publish("here.log.info.HIDDEN", b"HIDDEN nonsense, which is filed in REJECTED")
            await publish(js, line("past", "INFO", "x"), "here.")

    with started(nats, "staging") as running:
        run(check(running))
        yield running


FOREIGN = [
    "staging.>", "staging.log.>", "here.>", "here.log.>", "$JS.>", "$SYS.>", "checkpoint.>", "_INBOX.>",
    "rejected.>", "watchdog.>", "*.checkpoint.>", "*.log.info.*",
]  # fmt: skip


@pytest.mark.parametrize("pattern", FOREIGN)
def test_what_lies_elsewhere_is_never_shown(relay: Relay, pattern: str) -> None:
    """A grant or filter with a foreign or internal name is legal but matches nothing, live and in history."""

    async def check(grant: str, requested: str) -> None:
        shown = token(grant)
        async with (
            jetstream(relay.nats_url) as js,
            follow(relay.ws_url, token=shown, subjects=requested, since="earliest") as feed,
        ):
            await js.publish("here.checkpoint.host.more", b'{"HIDDEN":2}')
            await publish(js, line("HIDDEN of staging", "INFO", "x"), "staging.")
            await publish(js, line("shown to others", "INFO", "x"), "here.")
            await feed.send_message(type="subscribe", subjects=[requested], since="earliest", mode="latest")
            await feed.one(Snapshot)
            await feed.send_message(type="ping", id=1)
            await feed.until(lambda: feed.messages[-1].type == "pong")
            kinds = {message.type for message in feed.messages} - {
                "heartbeat",
                "upstream",
            }  # keepalive messages
            assert kinds == {"welcome", "subscribed", "snapshot", "pong"}
            assert all(message.events == [] for message in feed.messages if isinstance(message, Snapshot))
        page = exchange(relay, get(f"/events?limit=1000&subjects={requested}", bearer(shown)))
        assert json.loads(page.body)["events"] == []

    for grant, requested in ((">", pattern), (pattern, ">"), (pattern, pattern)):
        run(check(grant, requested))


def test_everything_is_everything_of_this_deployment(relay: Relay) -> None:
    """The widest grant and filter match this deployment's events, without checkpoints and rejected ones."""
    page = exchange(relay, get("/events?limit=1000", bearer(token(">"))))
    assert b"past" in page.body
    assert b"HIDDEN" not in page.body

    async def check() -> None:
        async with follow(relay.ws_url, token=token(">"), since="earliest", mode="complete") as feed:
            await feed.events(1)
            assert "HIDDEN" not in "".join(message.model_dump_json() for message in feed.messages)

    run(check())
